// RLIMIT_NOFILE and what it is worth.
#include "controlplane/relay/descriptor_limit.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>

#include "dataplane/abi/limits.hpp"

namespace bore::relay {

namespace {

std::uint64_t kernel_maximum() {
    std::uint64_t value = 0;
    std::ifstream("/proc/sys/fs/nr_open") >> value;
    return value;
}

// Standard streams, loops, log, listeners of the control port; then per worker a ring or epoll, an
// eventfd, and its pipes. A process with few descriptors will not have all pipes in use.
std::uint64_t left_for_connections(std::uint64_t count, std::uint64_t workers) {
    const std::uint64_t aside = 64 + workers * (2 * abi::max_pipes_per_worker);
    return count - std::min(aside, count / 2);
}

}  // namespace

std::uint64_t DescriptorLimit::tunnels(std::uint64_t addresses, std::uint64_t workers) const {
    return left_for_connections(count, workers) / (1 + addresses);
}

std::uint64_t DescriptorLimit::pairs(std::uint64_t workers) const {
    return left_for_connections(count, workers) / 2;
}

DescriptorLimit raise_descriptor_limit(std::uint32_t wanted) {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return {.count = 1024, .wanted = wanted};
    }
    const rlim_t target =
        wanted != 0 ? rlim_t{wanted} : std::max<rlim_t>(kernel_maximum(), limit.rlim_max);
    rlimit raised{.rlim_cur = target, .rlim_max = std::max(target, limit.rlim_max)};
    if (::setrlimit(RLIMIT_NOFILE, &raised) != 0) {
        raised = {.rlim_cur = std::min(target, limit.rlim_max), .rlim_max = limit.rlim_max};
        (void)::setrlimit(RLIMIT_NOFILE, &raised);
    }
    if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        raised = limit;
    }
    return {.count = raised.rlim_cur, .wanted = wanted};
}

}  // namespace bore::relay
