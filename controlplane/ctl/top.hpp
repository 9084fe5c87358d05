// `borectl top`: looks at the segment again and again, on a terminal or once.
#pragma once

#include "controlplane/ctl/options.hpp"
#include "dataplane/abi/segment_reader.hpp"

namespace bore::ctl {

// The exit status.
[[nodiscard]] int run_top(abi::SegmentReader reader, const TopOptions& options);

}  // namespace bore::ctl
