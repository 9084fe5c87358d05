// `borectl top`: looks at the segment again and again, on a terminal or once.
#pragma once

#include <string>

#include "controlplane/ctl/options.hpp"

namespace bore::ctl {

// The exit status.
[[nodiscard]] int run_top(const std::string& segment, const TopOptions& options);

}  // namespace bore::ctl
