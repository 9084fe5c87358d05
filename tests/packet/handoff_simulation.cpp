// What decides: control plane, stream engine, commands, the loop; and what must hold at the end.
#include "tests/packet/handoff_simulation.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <utility>

#include "dataplane/base/check.hpp"
#include "tests/packet/simulation_world.hpp"

namespace bore::packet::testing {

using base::microsecond_ns;
using base::millisecond_ns;
using base::second_ns;
using Kind = Event::Kind;

namespace {

enum Command : std::uint64_t { close_pair, drain, abort_visitor, abort_client };

constexpr Nanoseconds unclaimed_after = 10 * second_ns;
constexpr Nanoseconds most_smooth_time = 5 * second_ns;

}  // namespace

// ---- Control plane

void World::kernel_changed(int descriptor) {
    if (descriptor >= 0) {
        arm_kernel(descriptor);
    }
    if (!control_planned_ && !pair_opened_) {
        control_planned_ = true;
        events_.push(now_ + (scenario_.control_lag == 0
                                 ? 0
                                 : chance_.between<Nanoseconds>(0, scenario_.control_lag)),
                     Kind::control_turn);
    }
    if (stream_.live && !stream_planned_) {
        stream_planned_ = true;
        events_.push(now_ + chance_.between<Nanoseconds>(0, 50 * microsecond_ns),
                     Kind::stream_turn);
    }
}

void World::control_turn() {
    control_planned_ = false;
    for (int descriptor = 0; descriptor < kernel_.count() && !pair_opened_; ++descriptor) {
        KernelSocket& socket = kernel_.socket(descriptor);
        if (!socket.exists || socket.tcp.state() != TcpModel::State::open) {
            continue;
        }
        if (socket.leg == visitor && !socket.accepted && visitor_socket_ < 0) {
            socket.accepted = true;
            visitor_socket_ = descriptor;
            if (scenario_.client_comes) {
                events_.push(now_ + scenario_.client_delay, Kind::peer_turn, client, 1);
            }
            events_.push(now_ + unclaimed_after, Kind::control_turn, 0, 1);
        }
        if (socket.leg == client) {
            accept_client(descriptor);
        }
    }
}

// As the control plane learned them when it accepted.
abi::LegFacts World::facts_of(int descriptor) {
    const KernelSocket& socket = kernel_.socket(descriptor);
    return {.peer_address = socket.peer.address,
            .own_address = socket.own.address,
            .peer_port = socket.peer.port,
            .own_port = socket.own.port};
}

void World::accept_client(int descriptor) {
    KernelSocket& socket = kernel_.socket(descriptor);
    const auto unread = socket.tcp.unread();
    const auto end = std::ranges::find(unread, std::byte{0});
    if (socket.orphaned || end == unread.end()) {
        return;
    }
    if (visitor_abandoned_ || visitor_socket_ < 0) {
        kernel_.close(descriptor, now_);
        return;
    }
    const auto message_bytes = static_cast<std::size_t>(end - unread.begin()) + 1;
    abi::PairRequest request{.visitor_socket = visitor_socket_,
                             .client_socket = descriptor,
                             .left_over_to_visitor = {},
                             .left_over_to_client = {},
                             .tunnel_index = tunnel_index,
                             .tag = seed_};
    if (scenario_.reads_behind_accept) {
        const auto rest = unread.subspan(message_bytes);
        request.left_over_to_visitor.assign(rest.begin(), rest.end());
    }
    const std::size_t read_bytes = message_bytes + request.left_over_to_visitor.size();
    socket.tcp.take(read_bytes, now_);
    if (scenario_.tells_facts) {
        request.facts = {facts_of(visitor_socket_), facts_of(descriptor)};
        request.facts[client].read_bytes = read_bytes;
    }
    arm_kernel(descriptor);
    pair_opened_ = true;
    client_socket_ = descriptor;
    slow_path_->open_pair(pair_slot, pair_generation, std::move(request), now_);
}

// ---- Stream engine

void World::stream_turn() {
    stream_planned_ = false;
    if (!stream_.live) {
        return;
    }
    const std::array<int, 2> sockets{stream_.request.visitor_socket, stream_.request.client_socket};
    if (kernel_.socket(sockets[0]).dead() || kernel_.socket(sockets[1]).dead()) {
        finish_stream(true);
        return;
    }
    bool both_ended = true;
    for (const std::size_t source : {visitor, client}) {
        TcpModel& from = kernel_.socket(sockets[source]).tcp;
        TcpModel& to = kernel_.socket(sockets[1 - source]).tcp;
        auto& left_over = source == client ? stream_.request.left_over_to_visitor
                                           : stream_.request.left_over_to_client;
        stream_.moved[source] += left_over.size() + from.unread().size();
        to.write(left_over, now_);
        left_over.clear();
        to.write(from.unread(), now_);
        from.take(from.unread().size(), now_);
        if (from.at_end() && !to.shut()) {
            to.shut_down(now_);
        }
        both_ended = both_ended && from.at_end();
        arm_kernel(sockets[source]);
        arm_kernel(sockets[1 - source]);
    }
    if (both_ended) {
        finish_stream(false);
    }
}

void World::finish_stream(bool reset) {
    stream_.live = false;
    stream_.reset = reset;
    for (const int socket : {stream_.request.visitor_socket, stream_.request.client_socket}) {
        kernel_.socket(socket).orphaned = true;
        if (reset && !kernel_.socket(socket).dead()) {
            kernel_.socket(socket).tcp.abort(now_);
        }
    }
    events_.push(now_ + chance_.between<Nanoseconds>(0, millisecond_ns), Kind::stream_ended);
}

// ---- The loop

void World::arm_kernel(int descriptor) {
    KernelSocket& socket = kernel_.socket(descriptor);
    const Nanoseconds at = socket.tcp.next_timer();
    if (socket.exists && at < socket.armed_at) {
        socket.armed_at = at;
        events_.push(at, Kind::kernel_timer, 0, static_cast<std::uint64_t>(descriptor));
    }
}

void World::plan_slow_tick() {
    const Nanoseconds due = std::max(now_, slow_path_->next_deadline(now_));
    if (due < tick_planned_) {
        tick_planned_ = due;
        events_.push(due + chance_.between<Nanoseconds>(0, 20 * microsecond_ns), Kind::slow_tick);
    }
}

void World::command(std::uint64_t which) {
    switch (which) {
        case Command::close_pair:
            if (stream_.live) {
                finish_stream(true);
            } else {
                slow_path_->close_pair(pair_slot, pair_generation, now_);
            }
            return;
        case Command::drain:
            slow_path_->drain(now_ + scenario_.drain_time, now_);
            events_.push(now_ + scenario_.drain_time + 5 * second_ns, Kind::command, 0,
                         Command::close_pair);  // the stream engine's part of it
            return;
        case Command::abort_visitor:
        case Command::abort_client: {
            Peer& peer = peers_[which == Command::abort_visitor ? visitor : client];
            if (peer.connected) {
                peer.tcp.abort(now_);
            }
            return;
        }
        default:
            return;
    }
}

void World::handle(const Event& event) {
    switch (event.kind) {
        case Kind::arrive_at_relay:
            work(scenario_.port_of[event.index], event.packet);
            return;
        case Kind::arrive_at_peer:
            arrive_at_peer(event);
            return;
        case Kind::arrive_at_slow_path:
            note("slow path gets", event.packet->view());
            slow_path_->from_wire(event.index, event.packet->port_index, event.packet->view(),
                                  now_);
            pool_.give(event.packet);
            return;
        case Kind::injected:
            if (event.word != 0) {
                work(event.index, event.packet);
            } else {
                Frame frame = event.packet->frame();
                transmit(frame);
            }
            return;
        case Kind::arrive_at_kernel:
            kernel_takes_one(event.index);
            return;
        case Kind::leave_kernel:
            slow_path_->from_kernel(event.index, event.packet->view(), now_);
            pool_.give(event.packet);
            return;
        case Kind::close_sockets:
            close_now();
            break;
        case Kind::flow_event:
            slow_path_->flow_event(static_cast<FlowIndex>(event.word),
                                   static_cast<std::uint32_t>(event.word >> 32U), now_);
            return;
        case Kind::first_byte:
            slow_path_->first_byte(static_cast<FlowIndex>(event.word),
                                   static_cast<std::uint32_t>(event.word >> 32U),
                                   event.at - scenario_.divert_lag, now_);
            return;
        case Kind::slow_tick:
            if (event.at >= tick_planned_) {
                tick_planned_ = never;
                slow_path_->tick(now_);
            }
            return;
        default:
            handle_turn(event);
            return;
    }
}

void World::handle_turn(const Event& event) {
    switch (event.kind) {
        case Kind::peer_timer: {
            Peer& peer = peers_[event.index];
            if (event.at >= peer.armed_at) {
                peer.armed_at = never;
                peer.tcp.on_timer(now_);
                arm_peer(peer);
            }
            return;
        }
        case Kind::kernel_timer: {
            KernelSocket& socket = kernel_.socket(static_cast<int>(event.word));
            if (event.at >= socket.armed_at) {
                socket.armed_at = never;
                if (socket.exists) {
                    socket.tcp.on_timer(now_);
                    arm_kernel(static_cast<int>(event.word));
                }
            }
            return;
        }
        case Kind::peer_turn:
            peers_[event.index].turn_planned = event.word != 0;
            if (event.word != 0 && !peers_[event.index].connected) {
                peers_[event.index].connected = true;
                peers_[event.index].tcp.connect(now_);
                peers_[event.index].turn_planned = false;
                arm_peer(peers_[event.index]);
                return;
            }
            peer_turn(event.index);
            return;
        case Kind::control_turn:
            if (event.word == 1) {
                if (!pair_opened_ && visitor_socket_ >= 0 && !visitor_abandoned_) {
                    visitor_abandoned_ = true;
                    kernel_.close(visitor_socket_, now_);
                    arm_kernel(visitor_socket_);
                }
                return;
            }
            control_turn();
            return;
        case Kind::stream_turn:
            stream_turn();
            return;
        case Kind::stream_ended:
            slow_path_->stream_ended(pair_slot);
            return;
        case Kind::command:
            command(event.word);
            return;
        case Kind::probe:
            for (Peer& peer : peers_) {
                if (!peer.finished()) {
                    peer.tcp.probe(now_);
                }
            }
            for (int descriptor = 0; descriptor < kernel_.count(); ++descriptor) {
                if (kernel_.socket(descriptor).exists) {
                    kernel_.socket(descriptor).tcp.probe(now_);
                }
            }
            return;
        default:
            return;
    }
}

std::string World::run() {
    events_.push(now_, Kind::peer_turn, visitor, 1);
    if (scenario_.closes_at != never) {
        events_.push(now_ + scenario_.closes_at, Kind::command, 0, Command::close_pair);
    }
    if (scenario_.drains_at != never) {
        events_.push(now_ + scenario_.drains_at, Kind::command, 0, Command::drain);
    }
    for (const std::size_t peer : {visitor, client}) {
        if (scenario_.peers[peer].aborts_at != never) {
            events_.push(now_ + scenario_.peers[peer].aborts_at, Kind::command, 0,
                         peer == visitor ? Command::abort_visitor : Command::abort_client);
        }
    }
    if (!scenario_.is_whole()) {
        // Who lost a reset learns of it when it says something.
        for (Nanoseconds at = 30 * second_ns; at <= 60 * second_ns; at += 3 * second_ns) {
            events_.push(now_ + at, Kind::probe);
        }
    }
    std::uint32_t count = 0;
    while (!events_.empty() && failure_.empty()) {
        const Event event = events_.pop();
        now_ = std::max(now_, event.at);
        if (now_ > time_limit || ++count > event_limit) {
            if (event.packet != nullptr) {
                pool_.give(event.packet);
            }
            fail("it does not come to an end");
            break;
        }
        handle(event);
        plan_slow_tick();
        if (settled_at_ == never &&
            (went_to_stream_ || counters_.get(abi::SlowPathCounter::handoffs_total) != 0)) {
            settled_at_ = now_;
        }
        if (finished_at_ == never && peers_[visitor].finished() && peers_[client].finished()) {
            finished_at_ = now_;
        }
    }
    if (failure_.empty()) {
        check_end();
    }
    return failure_;
}

// ---- What must hold

void World::check_end() {
    const bool whole = scenario_.is_whole();
    for (const std::size_t index : {visitor, client}) {
        const Peer& peer = peers_[index];
        const std::string who = index == visitor ? "the visitor" : "the client";
        if (whole && (peer.tcp.received_bytes() != scenario_.peers[1 - index].stream_bytes ||
                      !peer.tcp.fin_received())) {
            fail(who + " received " + std::to_string(peer.tcp.received_bytes()) + " of " +
                 std::to_string(scenario_.peers[1 - index].stream_bytes) + " bytes" +
                 (peer.tcp.fin_received() ? "" : " and no FIN"));
        }
        if (!peer.finished() || (whole && peer.tcp.state() != TcpModel::State::open)) {
            fail(who + " did not end in order");
        }
    }
    check_smoothness();
    check_counts();
    check_leftovers();
}

// Where nothing is lost, the hand-off must not lose anything either, for a time or for good.
void World::check_smoothness() {
    if (!scenario_.is_smooth() || !failure_.empty()) {
        return;
    }
    for (const Peer& peer : peers_) {
        // One that ran out before had its cause before, and its repetitions take their time.
        if (settled_at_ != never && peer.tcp.timed_out_at() != 0 &&
            peer.tcp.timed_out_at() > settled_at_ + scenario_.round_trip()) {
            fail((peer.index == visitor ? "the visitor" : "the client") +
                 std::string(" had to send something again after the hand-off"));
        }
    }
    if (finished_at_ > start_time + most_smooth_time) {
        fail("it took too long for a way without losses");
    }
}

// Once for a pair that moved a byte; on the stream engine that one measures it, unless a byte was
// moved before.
void World::check_first_byte(std::uint64_t handoffs) {
    const auto& times =
        histograms_.histograms[static_cast<std::size_t>(abi::SlowPathHistogram::flow_first_byte_ns)]
            .counts;
    const std::uint64_t count = std::accumulate(times.begin(), times.end(), std::uint64_t{0});
    std::uint64_t moved = counters_.get(abi::SlowPathCounter::handoff_drained_bytes_total);
    if (ends_ == 1 && handoffs == 1) {
        moved += end_.to_client_bytes + end_.to_visitor_bytes;
    }
    if (count != (moved == 0 ? 0U : 1U)) {
        fail("the first of " + std::to_string(moved) + " bytes was measured " +
             std::to_string(count) + " times");
    }
}

void World::check_counts() {
    const std::uint64_t handoffs = counters_.get(abi::SlowPathCounter::handoffs_total);
    const bool closed_early = ends_ == 1 && handoffs == 0;
    ground_.spliced += handoffs;
    ground_.closed_in_handoff += closed_early ? 1 : 0;
    ground_.unpaired += pair_opened_ ? 0 : 1;
    ground_.retried_freezes += counters_.get(abi::SlowPathCounter::handoff_retries_total);
    ground_.replayed_frames += counters_.get(abi::SlowPathCounter::handoff_replayed_frames_total);
    ground_.drained_bytes += counters_.get(abi::SlowPathCounter::handoff_drained_bytes_total);
    const int results = ends_ + (went_to_stream_ ? 1 : 0);
    if (results != (pair_opened_ ? 1 : 0)) {
        fail("a pair had " + std::to_string(results) + " results");
        return;
    }
    const std::array<std::uint64_t, 2> streams{scenario_.peers[visitor].stream_bytes,
                                               scenario_.peers[client].stream_bytes};
    check_first_byte(handoffs);
    if (went_to_stream_ && scenario_.is_whole() && stream_.moved != streams) {
        fail("the bytes of a pair on the stream engine do not add up");
    }
    if (ends_ == 0) {
        return;
    }
    const std::array<std::uint64_t, 2> counted{end_.to_client_bytes, end_.to_visitor_bytes};
    if (scenario_.is_whole() && (end_.reason != abi::EndReason::fin || counted != streams)) {
        fail("a spliced pair was reported with " + std::string(abi::to_string(end_.reason)) + ", " +
             std::to_string(counted[0]) + " and " + std::to_string(counted[1]) + " bytes");
    }
    if (counted[0] > peers_[client].tcp.received_bytes() ||
        counted[1] > peers_[visitor].tcp.received_bytes()) {
        fail("a spliced pair was reported with more bytes than arrived");
    }
    if (end_.tag != seed_) {
        fail("the tag was lost");
    }
    std::array<std::uint64_t, 2> live{};
    for (const auto& rows : rows_) {
        live[0] += rows[0].get(abi::TunnelCounter::to_client_bytes_total);
        live[1] += rows[0].get(abi::TunnelCounter::to_visitor_bytes_total);
    }
    if (scenario_.is_whole() && live != counted) {
        fail("the tunnel's live counters do not add up");
    }
}

void World::check_leftovers() {
    using Counter = abi::SlowPathCounter;
    for (const auto& [counter, name] : {std::pair{Counter::held_frames, "held frames"},
                                        {Counter::held_bytes, "held bytes"},
                                        {Counter::legs_tracked, "legs"},
                                        {Counter::handoffs_under_way, "hand-offs"},
                                        {Counter::flows_live, "live flows"},
                                        {Counter::flows_lingering, "lingering flows"}}) {
        if (counters_.get(counter) != 0) {
            fail(std::to_string(counters_.get(counter)) + " " + name + " are left");
        }
    }
    if (!slow_path_->idle()) {
        fail("the slow path is not idle");
    }
    if (table_.size() != (scenario_.table_is_full ? 1U : 0U)) {
        fail("the flow table is not empty");
    }
    if (rows_[2][0].get(abi::TunnelCounter::tunnel_pairs_live) != 0) {
        fail("a pair is live in the tunnel's row");
    }
    if (pool_.taken() != 0) {
        fail("frames are left in flight");
    }
    if (stream_.live) {
        fail("the stream engine still has the pair");
    }
}

// ---- What the seeds share

SimulationGround::SimulationGround()
    : memory_(make_ordinary_memory()),
      pool_(std::make_unique<PacketPool>()),
      events_(std::make_unique<EventQueue>()) {
    table_ = FlowTable::make(*memory_, 16, 2, 1).value();
    full_table_ = FlowTable::make(*memory_, 1, 2, 1).value();
    FlowState state;
    state.legs[0].key = {.peer_address = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 9, 9, 9, 9},
                         .own_address = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 9, 9, 9, 8},
                         .peer_port = 1,
                         .own_port = 2};
    state.legs[1].key = state.legs[0].key;
    state.legs[1].key.peer_port = 3;
    const std::array<std::byte, 14> header{};
    state.legs[0].adjacency = state.legs[1].adjacency = full_table_->adjacency(header, 0).value();
    BORE_CHECK(full_table_->install(state, 1).has_value(), "the full table is not full");
}

SimulationGround::~SimulationGround() = default;

std::string simulate(SimulationGround& ground, std::uint64_t seed, bool trace) {
    World world(ground, seed, trace);
    return world.run();
}

}  // namespace bore::packet::testing
