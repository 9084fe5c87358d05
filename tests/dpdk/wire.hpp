// A wire for tests: veth pairs in a network namespace that this process alone has, the far end as a
// packet socket, and frames that can be told apart.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bore::dpdk_test {

using Bytes = std::vector<std::byte>;

// Ethernet, IPv4, TCP and a payload that depends on the ports; `length_bytes` in all, at least 60.
// With `vlan` between 1 and 4094 it carries a tag.
struct FrameShape {
    std::uint16_t source_port{1};
    std::uint16_t destination_port{80};
    std::size_t length_bytes{60};
    std::uint16_t vlan{0};
};
[[nodiscard]] Bytes make_frame(const FrameShape& shape);
[[nodiscard]] std::uint16_t source_port_of(std::span<const std::byte> frame);
// One of make_frame()'s; namespaces are never quite silent.
[[nodiscard]] bool is_test_frame(std::span<const std::byte> frame);

// Empty when this process has a fresh network namespace now and may do with it what it wants, else
// the sentence that a skipped test prints.
[[nodiscard]] std::string enter_own_namespace();
// Runs a command; true when it ended with 0. Its output goes nowhere.
bool run(const std::string& command);
// A veth pair NAME and NAMEp, both up, without IPv6, with so many queues each.
bool make_veth(const std::string& name, unsigned queues);

// The far end: sends and receives whole frames.
class WireEnd {
  public:
    explicit WireEnd(const std::string& interface);
    ~WireEnd();
    WireEnd(const WireEnd&) = delete;
    WireEnd& operator=(const WireEnd&) = delete;

    [[nodiscard]] bool send(std::span<const std::byte> frame) const;
    // The next test frame that came from the other side, tag included; nothing after a second.
    [[nodiscard]] std::optional<Bytes> receive() const;

  private:
    int socket_{-1};
};

}  // namespace bore::dpdk_test
