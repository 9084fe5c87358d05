// The bound of everything here: how many descriptors the process may have. Raised once, at start,
// before anything is opened.
#pragma once

#include <cstdint>

namespace bore::relay {

struct DescriptorLimit {
    std::uint64_t count;   // RLIMIT_NOFILE in force
    std::uint64_t wanted;  // what was asked for; more than `count` where it was not permitted

    // What the limit allows, each as if there was nothing else. A tunnel takes a control connection
    // and a listener per address, a pair two sockets; 1,088 descriptors per worker are set aside
    // for pipes and loops.
    [[nodiscard]] std::uint64_t tunnels(std::uint64_t addresses, std::uint64_t workers) const;
    [[nodiscard]] std::uint64_t pairs(std::uint64_t workers) const;
};

// 0 = as many as permitted: the kernel's fs.nr_open where the process may raise its hard limit
// (CAP_SYS_RESOURCE), else the hard limit.
[[nodiscard]] DescriptorLimit raise_descriptor_limit(std::uint32_t wanted);

}  // namespace bore::relay
