// What must hold in the kernel around a packet port, set up before the port starts and taken back
// when this object goes: who else sees the NIC's frames, connection tracking, superframes. Rules
// of a killed relay go with its process (tables) or are replaced at the next start (offloads).
//
//   nftables   table netdev bore_INTERFACE and table inet bore_INTERFACE, ours alone
//   ethtool    offloads of a NIC that stays with the kernel, put back at the end
//
// Never touched: other tables, sysctls, addresses and routes of other interfaces.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <vector>

namespace bore::drivers {

struct KernelRulesOptions {
    std::string exception_interface{"bore0"};
    // The NIC, where it stays an interface of the kernel (af_packet:IFACE, af_xdp:IFACE); empty
    // where DPDK owns it.
    std::string kernel_device;
    // af_packet: the NIC's frames reach the kernel's stack as well. Not so with af_xdp, whose XDP
    // program takes the frames of every queue that the port opened.
    bool frames_are_copies{false};
};

class KernelRules {
  public:
    virtual ~KernelRules() = default;
    // What could not be set up and the relay can live without; sentences for the log.
    [[nodiscard]] virtual const std::vector<std::string>& warnings() const = 0;
};

// After make_exception_interface(), before frames flow. Needs CAP_NET_ADMIN, also when it goes.
// The error is a sentence for the operator.
[[nodiscard]] std::expected<std::unique_ptr<KernelRules>, std::string> make_kernel_rules(
    const KernelRulesOptions& options);

}  // namespace bore::drivers
