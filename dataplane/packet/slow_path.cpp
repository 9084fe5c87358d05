// Ties the parts together: commands, frames, events and time go to the legs, the hand-offs and the
// flows. The tunnels' ports live here as well.
#include "dataplane/packet/slow_path.hpp"

#include <algorithm>
#include <utility>

#include "dataplane/packet/flow_end.hpp"
#include "dataplane/packet/handoff.hpp"
#include "dataplane/packet/leg_path.hpp"
#include "dataplane/packet/legs.hpp"
#include "dataplane/packet/neighbours.hpp"

namespace bore::packet {

namespace {

constexpr base::Nanoseconds never = ~base::Nanoseconds{0};

}  // namespace

// ---- Tunnels

void TunnelPorts::open(std::uint32_t tunnel_index, std::uint16_t public_port,
                       const abi::TunnelLimits& limits) {
    if (tunnels_.size() <= tunnel_index) {
        tunnels_.resize(tunnel_index + std::size_t{1});
    }
    tunnels_[tunnel_index] = {.public_port = public_port, .limits = limits, .open = true};
    ports_[public_port] = tunnel_index;
}

void TunnelPorts::set_limits(std::uint32_t tunnel_index, const abi::TunnelLimits& limits) {
    if (tunnel_index < tunnels_.size()) {
        tunnels_[tunnel_index].limits = limits;
    }
}

void TunnelPorts::close(std::uint32_t tunnel_index) {
    if (tunnel_index >= tunnels_.size() || !tunnels_[tunnel_index].open) {
        return;
    }
    tunnels_[tunnel_index].open = false;
    // The port may belong to another tunnel by now.
    const auto port = ports_.find(tunnels_[tunnel_index].public_port);
    if (port != ports_.end() && port->second == tunnel_index) {
        ports_.erase(port);
    }
}

bool TunnelPorts::holds(std::uint16_t public_port) const {
    const auto port = ports_.find(public_port);
    return port != ports_.end() &&
           tunnels_[port->second].limits.path_policy != abi::PathPolicy::stream;
}

const abi::TunnelLimits& TunnelPorts::limits(std::uint32_t tunnel_index) const {
    static constexpr abi::TunnelLimits none{};
    return tunnel_index < tunnels_.size() ? tunnels_[tunnel_index].limits : none;
}

// ---- The slow path

class SlowPath::Implementation {
  public:
    Implementation(SlowPathHost& host, FlowTable& table, abi::SlowPathCounters& counters,
                   abi::SlowPathHistograms& histograms, std::span<abi::TunnelCounters> tunnel_rows,
                   const SlowPathOptions& options)
        : context{.host = host,
                  .table = table,
                  .counters = counters,
                  .histograms = histograms,
                  .tunnel_rows = tunnel_rows,
                  .options = options,
                  .tunnels = {}} {}

    void set_now(base::Nanoseconds now) {
        if (now <= context.now) {
            return;
        }
        const bool first = context.now == 0;
        context.now = now;
        if (first) {  // no timer is armed yet: only to tell the wheel where time stands
            (void)context.wheel.advance(now, [](base::TimerNode&) {});
        }
    }

    void fire(base::TimerNode& node) {
        const auto& timer = static_cast<SlowTimer&>(node);
        switch (timer.kind) {
            case SlowTimer::Kind::leg:
                legs.on_timer(timer.index);
                return;
            case SlowTimer::Kind::handoff:
                handoffs.on_timer(timer.index);
                return;
            case SlowTimer::Kind::flow:
                flows.on_timer(timer.index);
                return;
        }
    }

    void tick() {
        handoffs.run_heard();
        if (context.now >= context.next_due) {
            (void)context.wheel.advance(context.now, [this](base::TimerNode& node) { fire(node); });
            context.next_due = context.wheel.next_deadline().value_or(never);
        }
        legs.sweep();
        flows.tick();
        neighbours.tick();
        if (context.draining && !cut && context.now >= drain_deadline) {
            cut = true;
            handoffs.abort_all(abi::StreamReason::busy);
            flows.cut_all(abi::EndReason::drained);
        }
    }

    [[nodiscard]] base::Nanoseconds next_deadline(base::Nanoseconds now) const {
        if (handoffs.has_heard() || flows.has_work() || neighbours.has_work()) {
            return now;
        }
        base::Nanoseconds due = std::min(context.next_due, legs.next_sweep());
        if (context.draining && !cut) {
            due = std::min(due, drain_deadline);
        }
        return due;
    }

    // In this order: timers of the parts must be gone before the wheel.
    SlowPathContext context;
    Legs legs{context};
    Flows flows{context};
    Handoffs handoffs{context, legs, flows};
    LegPath leg_path{context, legs, handoffs, flows};
    Neighbours neighbours{context, legs, flows};
    base::Nanoseconds drain_deadline{0};
    bool cut{false};
};

SlowPath::SlowPath(SlowPathHost& host, FlowTable& table, abi::SlowPathCounters& counters,
                   abi::SlowPathHistograms& histograms, std::span<abi::TunnelCounters> tunnel_rows,
                   const SlowPathOptions& options)
    : implementation_(std::make_unique<Implementation>(host, table, counters, histograms,
                                                       tunnel_rows, options)) {}

SlowPath::~SlowPath() = default;

// ---- Commands

void SlowPath::open_tunnel(std::uint32_t tunnel_index, std::uint16_t public_port,
                           const abi::TunnelLimits& limits) {
    implementation_->context.tunnels.open(tunnel_index, public_port, limits);
}

void SlowPath::set_tunnel_limits(std::uint32_t tunnel_index, const abi::TunnelLimits& limits) {
    implementation_->context.tunnels.set_limits(tunnel_index, limits);
    implementation_->flows.recheck_all();
}

void SlowPath::close_tunnel(std::uint32_t tunnel_index) {
    implementation_->context.tunnels.close(tunnel_index);
}

void SlowPath::open_pair(std::uint32_t pair_slot, std::uint32_t generation,
                         abi::PairRequest&& request, base::Nanoseconds now) {
    implementation_->set_now(now);
    implementation_->handoffs.open(pair_slot, generation, std::move(request));
}

void SlowPath::close_pair(std::uint32_t pair_slot, std::uint32_t generation,
                          base::Nanoseconds now) {
    implementation_->set_now(now);
    if (!implementation_->handoffs.close(pair_slot, generation)) {
        (void)implementation_->flows.close(pair_slot, generation);
    }
}

void SlowPath::stream_ended(std::uint32_t pair_slot) {
    implementation_->legs.unpin(pair_slot);
}

void SlowPath::drain(base::Nanoseconds deadline, base::Nanoseconds now) {
    implementation_->set_now(now);
    implementation_->context.draining = true;
    implementation_->drain_deadline = deadline;
}

// ---- Frames, events, time

void SlowPath::from_wire(std::uint32_t worker_index, std::uint8_t port_index,
                         std::span<const std::byte> frame, base::Nanoseconds now) {
    implementation_->set_now(now);
    implementation_->leg_path.from_wire(worker_index, port_index, frame);
}

void SlowPath::from_kernel(std::uint8_t port_index, std::span<const std::byte> frame,
                           base::Nanoseconds now) {
    implementation_->set_now(now);
    implementation_->leg_path.from_kernel(port_index, frame);
}

void SlowPath::neighbour(std::uint8_t port_index, const std::array<std::uint8_t, 16>& address,
                         const LinkAddress& link_address, base::Nanoseconds now) {
    implementation_->set_now(now);
    implementation_->neighbours.learn(port_index, address, link_address);
}

void SlowPath::flow_event(FlowIndex flow, std::uint32_t generation, base::Nanoseconds now) {
    implementation_->set_now(now);
    implementation_->flows.on_event(flow, generation);
}

void SlowPath::first_byte(FlowIndex flow, std::uint32_t generation, base::Nanoseconds at,
                          base::Nanoseconds now) {
    implementation_->set_now(now);
    implementation_->flows.on_first_byte(flow, generation, at);
}

void SlowPath::recheck_flows() {
    implementation_->flows.recheck_all();
}

void SlowPath::tick(base::Nanoseconds now) {
    implementation_->set_now(now);
    implementation_->tick();
}

base::Nanoseconds SlowPath::next_deadline(base::Nanoseconds now) const {
    return implementation_->next_deadline(now);
}

abi::FlowPage SlowPath::list_flows(FlowIndex from, base::Nanoseconds now) {
    implementation_->set_now(now);
    return implementation_->flows.list(from);
}

bool SlowPath::idle() const {
    return implementation_->handoffs.count() == 0 && implementation_->flows.live_count() == 0;
}

}  // namespace bore::packet
