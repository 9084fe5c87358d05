// What the packet engine is allowed to do: said in words before it starts, reduced to what the
// hand-off needs once it has. All threads of the process are changed, those of libraries too.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <vector>

namespace bore::drivers {

// What the ports that the operator named need.
struct PrivilegeNeeds {
    bool vfio{false};       // a PCI address
    bool af_packet{false};  // af_packet:IFACE
    bool af_xdp{false};     // af_xdp:IFACE
    bool hugepages{false};  // memory of the packet engine in hugepages
};

// One sentence for each thing that is missing, with its remedy; empty when all is there.
[[nodiscard]] std::vector<std::string> missing_privileges(const PrivilegeNeeds& needs);

// Sent to each other thread of the process, once, while drop_privileges() runs.
[[nodiscard]] int privilege_signal();

struct PrivilegeDrop {
    std::string user;  // becomes this user and its groups; empty = stays who it is
};

// Keeps CAP_NET_ADMIN (permitted and effective) and gives up every other capability, the bounding
// set, and the way to new privileges by executing a program. For TCP_REPAIR, the TAP device and the
// removal of rules nothing else is needed. Call it once, after the ports are open, from a thread
// whose capabilities are still whole, while no other thread starts threads. A thread that blocks
// privilege_signal() cannot be reached: that is an error which names it, so start threads that
// block all signals afterwards (they inherit what is left) or leave that one out.
// The process must end after an error: some threads may have changed.
[[nodiscard]] std::expected<void, std::string> drop_privileges(const PrivilegeDrop& options);

}  // namespace bore::drivers
