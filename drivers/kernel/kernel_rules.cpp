// Each rule with what happens without it, which decides whether its failure is an error:
//
//   ingress drop   the kernel processes copies of all frames of an af_packet NIC and resets the
//                  connections that it does not know there: error. For af_xdp only frames of queues
//                  that the port did not open get so far: warning.
//   egress drop    what the kernel says on the NIC by itself (neighbour discovery, multicast
//                  reports, ARP) comes back as a received frame of af_packet, and the exception
//                  interface finds its link-local address taken: warning.
//   notrack        connection tracking sees half of each spliced connection, calls its packets
//                  invalid, and a filter may drop them: warning.
//   superframes    GRO and LRO join segments into frames longer than the MTU, which fit no buffer
//                  of the port: warning, the packet path drops and counts them.
//
// Nothing can be done here about a veth device whose other end has transmit offloads on: frames
// then arrive without a checksum, or longer than the MTU. Switch them off at that end
// (ethtool -K PEER tx off tso off gso off).
#include "drivers/kernel/kernel_rules.hpp"

#include <net/if.h>
#include <nftables/libnftables.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "drivers/kernel/ethernet_features.hpp"

namespace bore::drivers {
namespace {

class Nftables {
  public:
    Nftables() : context_(nft_ctx_new(NFT_CTX_DEFAULT)) {
        if (context_ != nullptr) {
            // Otherwise both go to our stdout and stderr.
            nft_ctx_buffer_output(context_);
            nft_ctx_buffer_error(context_);
        }
    }
    ~Nftables() {
        if (context_ != nullptr) {
            nft_ctx_free(context_);
        }
    }
    Nftables(const Nftables&) = delete;
    Nftables& operator=(const Nftables&) = delete;

    // All commands or none. The error is the first line of nftables' complaint.
    [[nodiscard]] std::expected<void, std::string> run(const std::string& commands) {
        if (context_ == nullptr) {
            return std::unexpected("nftables cannot be used");
        }
        if (nft_run_cmd_from_buffer(context_, commands.c_str()) == 0) {
            return {};
        }
        std::string text = nft_ctx_get_error_buffer(context_);
        text.erase(std::min(text.find('\n'), text.size()));
        return std::unexpected(text.empty() ? "nftables refused without a word" : text);
    }

  private:
    nft_ctx* context_;
};

// An identifier of nftables: others than these characters would end it.
std::string table_name(const std::string& interface_name) {
    std::string name = "bore_" + interface_name;
    std::replace_if(
        name.begin(), name.end(),
        [](char letter) {
            const bool plain = (letter >= 'a' && letter <= 'z') ||
                               (letter >= 'A' && letter <= 'Z') || (letter >= '0' && letter <= '9');
            return !plain && letter != '_' && letter != '-' && letter != '.';
        },
        '_');
    return name;
}

// Adding before deleting makes the deletion of a table that is not there succeed.
std::string without_table(const std::string& table) {
    return "add table " + table + "\ndelete table " + table + "\n";
}

// Tables are owned by the context's socket (`flags owner`, kernel 5.12): they go when the process
// does, however it ends, and nobody else changes them meanwhile.

// Asking nftables for it would load the module.
bool conntrack_loaded() {
    return ::access("/proc/sys/net/netfilter/nf_conntrack_max", F_OK) == 0;
}

class Rules final : public KernelRules {
  public:
    explicit Rules(const KernelRulesOptions& options)
        : options_(options),
          device_table_("netdev " + table_name(options.exception_interface)),
          inet_table_("inet " + table_name(options.exception_interface)) {}

    ~Rules() override {
        if (features_) {
            features_->restore();
        }
        if (installed_) {
            [[maybe_unused]] const auto gone = nftables_.run(without_table(device_table_));
            [[maybe_unused]] const auto too = nftables_.run(without_table(inet_table_));
        }
    }

    [[nodiscard]] const std::vector<std::string>& warnings() const override { return warnings_; }

    [[nodiscard]] std::expected<void, std::string> install() {
        installed_ = true;
        remove_stale();
        if (!options_.kernel_device.empty()) {
            if (auto closed = close_device(); !closed) {
                return closed;
            }
            forbid_superframes();
        }
        if (conntrack_loaded()) {
            switch_off_tracking();
        }
        return {};
    }

  private:
    // Where this fails, the following would, and says so.
    void remove_stale() {
        [[maybe_unused]] const auto gone = nftables_.run(without_table(device_table_));
        [[maybe_unused]] const auto too = nftables_.run(without_table(inet_table_));
    }

    // Packet sockets and XDP see a frame before the ingress hook does (kernel 6.18,
    // __netif_receive_skb_core), so it drops for the kernel alone. The egress hook comes before
    // packet sockets see what is sent; only what a process sends through a socket of its own may
    // pass, which is what the port itself does.
    [[nodiscard]] std::expected<void, std::string> close_device() {
        const std::string& device = options_.kernel_device;
        const std::string hook = " device \"" + device + "\" priority -500; policy drop; ";
        const auto ingress = nftables_.run(
            "table " + device_table_ +
            " {\n flags owner\n chain ingress { type filter hook ingress" + hook + "}\n}\n");
        if (!ingress && options_.frames_are_copies) {
            return std::unexpected("the kernel cannot be kept from answering on " + device +
                                   " itself (nftables: " + ingress.error() +
                                   "); the relay needs CAP_NET_ADMIN and a kernel with the netdev "
                                   "family of nftables");
        }
        if (!ingress) {
            warnings_.push_back("frames of queues of " + device +
                                " that the relay did not open reach the kernel (nftables: " +
                                ingress.error() + ")");
        }
        const auto egress = nftables_.run(
            "table " + device_table_ + " {\n flags owner\n chain egress { type filter hook egress" +
            hook + "meta skuid >= 0 accept; }\n}\n");
        if (!egress) {
            warnings_.push_back("the kernel may speak on " + device +
                                " itself (nftables: " + egress.error() +
                                "); take its addresses away and switch IPv6 off "
                                "there (sysctl net.ipv6.conf." +
                                device + ".disable_ipv6=1)");
        }
        return {};
    }

    void forbid_superframes() {
        features_ = std::make_unique<EthernetFeatures>(options_.kernel_device);
        // rx-vlan-hw-parse: the NIC would take the VLAN tag out of the frame, and XDP loses it.
        for (const std::string& feature :
             features_->switch_off({"rx-gro", "rx-lro", "rx-udp-gro", "rx-vlan-hw-parse"})) {
            warnings_.push_back(feature + " of " + options_.kernel_device +
                                " cannot be switched off; frames longer than the MTU are dropped "
                                "and counted");
        }
    }

    void switch_off_tracking() {
        const std::string& name = options_.exception_interface;
        const auto done =
            nftables_.run("table " + inet_table_ +
                          " {\n flags owner\n chain prerouting { type filter hook prerouting "
                          "priority raw; policy accept; "
                          "iifname \"" +
                          name +
                          "\" notrack; }\n"
                          " chain output { type filter hook output priority raw; policy accept; "
                          "oifname \"" +
                          name + "\" notrack; }\n}\n");
        if (!done) {
            warnings_.push_back("connections of " + name + " are tracked (nftables: " +
                                done.error() + "); a stateful firewall may drop their packets");
        }
    }

    KernelRulesOptions options_;
    std::string device_table_;
    std::string inet_table_;
    Nftables nftables_;
    std::unique_ptr<EthernetFeatures> features_;
    std::vector<std::string> warnings_;
    bool installed_{false};
};

bool quotable(const std::string& name) {
    return !name.empty() && name.size() < IFNAMSIZ &&
           name.find_first_of("\"\\*\n ") == std::string::npos;
}

}  // namespace

std::expected<std::unique_ptr<KernelRules>, std::string> make_kernel_rules(
    const KernelRulesOptions& options) {
    const std::string& device = options.kernel_device;
    if (!quotable(options.exception_interface) || (!device.empty() && !quotable(device))) {
        return std::unexpected("\"" + device + "\" or \"" + options.exception_interface +
                               "\" is no name for an interface");
    }
    if (!device.empty() && ::if_nametoindex(device.c_str()) == 0) {
        return std::unexpected("there is no interface " + device +
                               "; \"ip link\" lists those that are there");
    }
    auto rules = std::make_unique<Rules>(options);
    if (auto installed = rules->install(); !installed) {
        return std::unexpected(installed.error());
    }
    return rules;
}

}  // namespace bore::drivers
