// Live flows as an operator sees them. Reads what the packet path writes, relaxed: a page is of
// many moments, and every number in it was true once.
#include <algorithm>
#include <array>

#include "dataplane/packet/flow_end.hpp"

namespace bore::packet {

using abi::Leg;

namespace {

abi::FlowEnd peer_of(const FlowKey& key) {
    return {.address = key.peer_address, .port = key.peer_port};
}

abi::FlowEnd own_of(const FlowKey& key) {
    return {.address = key.own_address, .port = key.own_port};
}

}  // namespace

abi::FlowPage Flows::list(FlowIndex from) const {
    abi::FlowPage page{.splices = true, .flows = {}, .next = {}};
    const std::uint64_t last = std::uint64_t{from} + abi::max_flows_scanned_per_page;
    FlowIndex flow = from;
    for (; flow < record_count_ && flow < last; ++flow) {
        if (page.flows.size() == abi::max_flows_per_page) {
            break;
        }
        const FlowRecord& known = chunks_[flow / chunk_records][flow % chunk_records];
        if (known.phase == FlowRecord::Phase::live) {
            page.flows.push_back(told(flow, known));
        }
    }
    if (flow < record_count_) {
        page.next = flow;
    }
    return page;
}

abi::SplicedFlow Flows::told(FlowIndex flow, const FlowRecord& live) const {
    const FlowKey visitor = key_of_leg(flow, Leg::visitor);
    const FlowKey client = key_of_leg(flow, Leg::client);
    std::array<std::uint64_t, 2> bytes = context_.table.delivered_bytes(flow);
    if (const auto extra = extras_.find(flow); extra != extras_.end()) {
        bytes[visitor_leg] += extra->second.drained_bytes[visitor_leg];
        bytes[client_leg] += extra->second.drained_bytes[client_leg];
    }
    const auto last_frame = base::Nanoseconds{last_frame_tick(flow)} << activity_tick_shift;
    return {.flow_index = flow,
            .tunnel_index = context_.table.direction(direction_of(flow, Leg::visitor)).tunnel_index,
            .visitor = peer_of(visitor),
            .public_end = own_of(visitor),
            .client = peer_of(client),
            .data_end = own_of(client),
            .to_client_bytes = bytes[visitor_leg],
            .to_visitor_bytes = bytes[client_leg],
            .age_ns = context_.now - live.opened_at,
            .idle_ns = context_.now - std::min(last_frame, context_.now)};
}

}  // namespace bore::packet
