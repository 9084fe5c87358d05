// One question to a relay's control socket and its answer. Blocking, with a time limit.
#pragma once

#include <expected>
#include <string>

#include <boost/json/object.hpp>

#include "controlplane/command/request.hpp"

namespace bore::ctl {

// True when somebody accepts connections there.
[[nodiscard]] bool answers(const std::string& path);

// The answer, whatever it says. The error is a sentence: nobody answers, no rights, no JSON.
[[nodiscard]] std::expected<boost::json::object, std::string> ask(const std::string& path,
                                                                  const command::Request& request);

}  // namespace bore::ctl
