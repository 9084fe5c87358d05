// What an engine tells of the connections that it moves as packets, past the program's sockets: a
// page of them at a time. Values only; whoever asked may keep them as long as it likes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "dataplane/base/clock.hpp"

namespace bore::abi {

// A page is bounded twice, so that neither many flows nor many gaps between them hold up whoever
// makes it: by flows told, and by places of the flow table looked at.
inline constexpr std::size_t max_flows_per_page = 256;
inline constexpr std::uint32_t max_flows_scanned_per_page = 4'096;

// Network byte order, IPv4 as ::ffff:a.b.c.d; the port in host byte order.
struct FlowEnd {
    std::array<std::uint8_t, 16> address{};
    std::uint16_t port{0};
};

struct SplicedFlow {
    std::uint32_t flow_index{0};
    std::uint32_t tunnel_index{0};
    FlowEnd visitor;     // who came
    FlowEnd public_end;  // to which address and port of the relay
    FlowEnd client;      // who serves
    FlowEnd data_end;    // at which address and port of the relay
    std::uint64_t to_client_bytes{0};
    std::uint64_t to_visitor_bytes{0};
    base::Nanoseconds age_ns{0};
    base::Nanoseconds idle_ns{0};  // since the latest frame, in steps of 268 ms
};

struct FlowPage {
    bool splices{false};  // false: this engine moves no connection as packets
    std::vector<SplicedFlow> flows;
    std::optional<std::uint32_t> next;  // where the next page begins; nothing at the end
};

}  // namespace bore::abi
