// What a command's answer says to a person.
#pragma once

#include <string>

#include <boost/json/object.hpp>

#include "controlplane/command/request.hpp"

namespace bore::ctl {

// One or more lines; of an answer that says ok.
[[nodiscard]] std::string success_text(const command::Request& request,
                                       const boost::json::object& answer);
// The error of an answer that does not, with single errors below it.
[[nodiscard]] std::string failure_text(const boost::json::object& answer);
[[nodiscard]] bool is_ok(const boost::json::object& answer);

}  // namespace bore::ctl
