// What carries frames: wires and peers, workers, the slow path's host.
#include "tests/packet/simulation_world.hpp"

#include <cerrno>
#include <cstdio>
#include <utility>

namespace bore::packet::testing {

using base::millisecond_ns;
using Kind = Event::Kind;

void Peer::emit(TcpModel& /*from*/, const WireSegment& segment) {
    world->peer_emits(index, segment);
}

namespace {

std::array<std::uint8_t, 16> address(bool v6, std::uint8_t network, std::uint8_t host) {
    if (v6) {
        return {0x20, 1, 0x0d, 0xb8, 0, network, 0, 0, 0, 0, 0, 0, 0, 0, 0, host};
    }
    return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, network, host};
}

}  // namespace

World::World(SimulationGround& ground, std::uint64_t seed, bool trace)
    : ground_(ground),
      pool_(ground.pool()),
      events_(ground.events()),
      seed_(seed),
      trace_(trace),
      chance_(seed),
      scenario_(draw_scenario(chance_)),
      table_(scenario_.table_is_full ? ground.full_table() : ground.table()),
      pipelines_{Pipeline{0, table_, worker_counters_[0], rows_[0], outlets_[0]},
                 Pipeline{1, table_, worker_counters_[1], rows_[1], outlets_[1]}} {
    slow_path_.emplace(static_cast<SlowPathHost&>(*this), table_, counters_, histograms_, rows_[2],
                       scenario_.options);
    slow_path_->open_tunnel(tunnel_index, tunnel_port, scenario_.limits);
    kernel_.start(scenario_, *this);
    for (const std::size_t index : {visitor, client}) {
        Peer& peer = peers_[index];
        const std::uint8_t port = scenario_.port_of[index];
        const auto number = static_cast<std::uint8_t>(index);
        peer.world = this;
        peer.index = index;
        peer.own = {
            .mac = {2, 0, 0, 0, 1, number},
            .address = address(scenario_.v6[index], port, static_cast<std::uint8_t>(10 + number)),
            .port = static_cast<std::uint16_t>(40'000 + index)};
        peer.relay = {.mac = {2, 0, 0, 0, 2, port},
                      .address = address(scenario_.v6[index], port, 1),
                      .port = index == visitor ? tunnel_port : control_port};
        peer.tcp.start(peer, scenario_.peers[index].peer);
        if (index == client) {
            for (const char symbol : accept_message) {
                peer.to_send.push_back(static_cast<std::byte>(symbol));
            }
        }
        for (std::size_t offset = 0; offset < scenario_.peers[index].stream_bytes; ++offset) {
            peer.to_send.push_back(expected_byte(index, offset));
        }
    }
}

World::~World() {
    events_.clear([this](const Event& event) {
        if (event.packet != nullptr) {
            pool_.give(event.packet);
        }
    });
    for (const auto& inbox : kernel_inboxes_) {
        std::ranges::for_each(inbox, [this](Packet* packet) { pool_.give(packet); });
    }
}

void World::fail(const std::string& what) {
    if (failure_.empty()) {
        failure_ = what;
    }
}

std::byte World::expected_byte(std::size_t source, std::size_t offset) const {
    const std::size_t mixed = offset * 167 + (offset >> 7U) * 13 + source * 91 + seed_;
    return static_cast<std::byte>(mixed & 0xffU);
}

void World::note(const char* what, std::span<const std::byte> frame) {
    if (!trace_) {
        return;
    }
    WireHeader header;
    WireSegment segment;
    const std::string wrong = decode(frame, header, segment);
    std::fprintf(
        stderr, "%12.6f %-18s %5u > %5u %c%c%c%c seq %u ack %u len %zu win %u ts %u ecr %u %s\n",
        static_cast<double>(now_ - start_time) / 1e9, what, header.source.port,
        header.destination.port, segment.has(tcp_syn) ? 'S' : '.', segment.has(tcp_fin) ? 'F' : '.',
        segment.has(tcp_rst) ? 'R' : '.', segment.has(tcp_ack) ? 'A' : '.', segment.sequence,
        segment.acknowledgement, segment.payload.size(), segment.window, segment.timestamp,
        segment.echo, wrong.c_str());
}

// ---- Wires and peers

Packet* World::packet_of(std::span<const std::byte> frame, std::uint8_t port_index) {
    Packet* packet = pool_.take();
    packet->set(frame);
    packet->port_index = port_index;
    return packet;
}

// Times on a way that keeps the order.
Nanoseconds World::in_order(std::size_t queue, Nanoseconds lag) {
    const Nanoseconds at = now_ + (lag == 0 ? 0 : chance_.between<Nanoseconds>(0, lag));
    queue_times_[queue] = std::max(queue_times_[queue], at);
    return queue_times_[queue];
}

void World::over_wire(std::size_t peer, bool towards_relay, Packet* packet) {
    const PeerScenario& wire = scenario_.peers[peer];
    const Kind kind = towards_relay ? Kind::arrive_at_relay : Kind::arrive_at_peer;
    const std::size_t queue = peer * 2 + (towards_relay ? 1 : 0);
    const auto index = static_cast<std::uint8_t>(peer);
    if (chance_.mille(wire.repeat_mille)) {
        Packet* again = packet_of(packet->view(), packet->port_index);
        events_.push(now_ + wire.delay + chance_.between<Nanoseconds>(0, 2 * wire.delay), kind,
                     index, 0, again);
    }
    if (chance_.mille(wire.loss_mille)) {
        note("LOST", packet->view());
        pool_.give(packet);
        return;
    }
    const Nanoseconds at = chance_.mille(wire.reorder_mille)
                               ? now_ + wire.delay + chance_.between<Nanoseconds>(0, wire.delay)
                               : in_order(queue, wire.jitter) + wire.delay;
    events_.push(at, kind, index, 0, packet);
}

void World::peer_emits(std::size_t peer, const WireSegment& segment) {
    Packet* packet = pool_.take();
    packet->offset = Packet::headroom_bytes;
    packet->length = static_cast<std::uint16_t>(encode(
        peers_[peer].own, peers_[peer].relay, segment, &packet->bytes[Packet::headroom_bytes]));
    packet->port_index = scenario_.port_of[peer];
    note("peer sends", packet->view());
    over_wire(peer, true, packet);
}

void World::arrive_at_peer(const Event& event) {
    note("peer receives", event.packet->view());
    WireHeader header;
    WireSegment segment;
    const std::string wrong = decode(event.packet->view(), header, segment);
    Peer& peer = peers_[event.index];
    if (!wrong.empty()) {
        fail("a frame reached a peer with " + wrong);
    } else if (header.destination.mac != peer.own.mac || header.source.mac != peer.relay.mac ||
               header.destination.address != peer.own.address ||
               header.source.address != peer.relay.address ||
               header.destination.port != peer.own.port || header.source.port != peer.relay.port) {
        fail("a frame reached a peer with wrong addresses");
    } else if (peer.tcp.state() == TcpModel::State::reset) {
        if (!segment.has(tcp_rst)) {  // nobody there any more
            peer_emits(event.index, {.sequence = segment.acknowledgement, .flags = tcp_rst});
        }
    } else {
        peer.tcp.arrive(segment, now_);
        verify(peer);
        arm_peer(peer);
        plan_peer_turn(event.index, 0);
    }
    pool_.give(event.packet);
}

void World::verify(Peer& peer) {
    const std::size_t source = 1 - peer.index;
    const auto received = peer.tcp.received();
    if (received.size() > scenario_.peers[source].stream_bytes) {
        fail(peer.index == visitor ? "the visitor received too much"
                                   : "the client received too much");
        return;
    }
    for (; peer.verified < received.size(); ++peer.verified) {
        if (received[peer.verified] != expected_byte(source, peer.verified)) {
            fail((peer.index == visitor ? "the visitor" : "the client") +
                 std::string(" received a wrong byte at ") + std::to_string(peer.verified));
            return;
        }
    }
    if (!peer.tcp.violation().empty()) {
        fail((peer.index == visitor ? "to the visitor: " : "to the client: ") +
             peer.tcp.violation());
    }
}

void World::arm_peer(Peer& peer) {
    const Nanoseconds at = peer.tcp.next_timer();
    if (at < peer.armed_at) {
        peer.armed_at = at;
        events_.push(at, Kind::peer_timer, static_cast<std::uint8_t>(peer.index));
    }
}

void World::plan_peer_turn(std::size_t index, Nanoseconds delay) {
    if (!peers_[index].turn_planned) {
        peers_[index].turn_planned = true;
        events_.push(now_ + delay, Kind::peer_turn, static_cast<std::uint8_t>(index));
    }
}

void World::peer_turn(std::size_t index) {
    Peer& peer = peers_[index];
    const PeerScenario& habits = scenario_.peers[index];
    if (peer.tcp.state() == TcpModel::State::reset) {
        return;
    }
    if (!peer.tcp.unread().empty()) {
        const std::size_t waiting = peer.tcp.unread().size();
        const std::size_t most = habits.reads_slowly ? std::size_t{700} : waiting;
        peer.tcp.take(std::min(waiting, most), now_);
        if (most < waiting) {
            plan_peer_turn(index, chance_.between<Nanoseconds>(0, 20 * millisecond_ns));
        }
    }
    if (peer.tcp.state() == TcpModel::State::open && peer.sent < peer.to_send.size()) {
        const std::size_t left = peer.to_send.size() - peer.sent;
        const std::size_t head = index == client ? accept_message.size() : 0;
        std::size_t size =
            peer.sent == 0 ? head + habits.early_bytes : chance_.between<std::size_t>(1, 2'000);
        size = std::min(left, std::max<std::size_t>(size, 1));
        peer.tcp.write(std::span(peer.to_send).subspan(peer.sent, size), now_);
        peer.sent += size;
        plan_peer_turn(index,
                       habits.pause == 0 ? 0 : chance_.between<Nanoseconds>(0, habits.pause));
    }
    if (peer.sent == peer.to_send.size() && peer.tcp.state() == TcpModel::State::open &&
        !peer.tcp.shut()) {
        if (peer.shuts_at == never && habits.shuts_early) {
            peer.shuts_at = now_ + habits.shut_delay;
            peer.turn_planned = false;
            plan_peer_turn(index, habits.shut_delay);
        }
        if (now_ >= peer.shuts_at || peer.tcp.fin_received()) {
            peer.tcp.shut_down(now_);
        }
    }
    arm_peer(peer);
}

// ---- Workers

void World::work(std::uint8_t worker, Packet* packet) {
    Frame frame = packet->frame();
    pipelines_[worker].process({&frame, 1}, now_);
    table_.quiescent(worker);
}

void World::discard(Frame& frame) {
    pool_.give(static_cast<Packet*>(frame.buffer));
}

void World::transmit(Frame& frame) {
    auto* packet = static_cast<Packet*>(frame.buffer);
    packet->take(frame);
    note("spliced", packet->view());
    // Which peer is behind this port: the address says.
    WireHeader header;
    WireSegment segment;
    if (const std::string wrong = decode(packet->view(), header, segment); !wrong.empty()) {
        fail("the packet path sent a frame with " + wrong);
        pool_.give(packet);
        return;
    }
    const std::size_t peer = header.destination.port == peers_[visitor].own.port ? visitor : client;
    if (packet->port_index != scenario_.port_of[peer]) {
        fail("a frame left by the wrong port");
    }
    over_wire(peer, false, packet);
}

void World::divert(std::uint8_t worker, Frame& frame) {
    auto* packet = static_cast<Packet*>(frame.buffer);
    packet->take(frame);
    events_.push(in_order(4 + worker, scenario_.divert_lag), Kind::arrive_at_slow_path, worker, 0,
                 packet);
}

bool World::allocate(std::uint8_t port_index, Frame& frame) {
    Packet* packet = pool_.take();
    packet->offset = Packet::headroom_bytes;
    packet->length = 0;
    packet->port_index = port_index;
    frame = packet->frame();
    return true;
}

void World::flow_event(const FlowEvent& event) {
    const Kind kind =
        event.kind == FlowEvent::Kind::first_byte ? Kind::first_byte : Kind::flow_event;
    events_.push(now_ + scenario_.divert_lag, kind, 0,
                 std::uint64_t{event.generation} << 32U | event.flow);
}

// ---- SlowPathHost

bool World::to_kernel(std::uint8_t port_index, std::span<const std::byte> frame) {
    note("to kernel", frame);
    if (chance_.mille(scenario_.kernel_loss_mille)) {
        return false;
    }
    kernel_inboxes_[port_index].push_back(packet_of(frame, port_index));
    events_.push(in_order(7U + port_index, scenario_.to_kernel_lag[port_index]),
                 Kind::arrive_at_kernel, port_index);
    return true;
}

void World::kernel_takes_one(std::size_t port) {
    if (kernel_inboxes_[port].empty()) {
        return;  // it was quicker
    }
    Packet* packet = kernel_inboxes_[port].front();
    kernel_inboxes_[port].pop_front();
    note("kernel gets", packet->view());
    kernel_changed(kernel_.arrive(packet->port_index, packet->view(), now_));
    pool_.give(packet);
}

// The kernel does not wait while somebody asks it: frames on their way to it arrive between any two
// calls. This is what traps 1 and 2 are made of.
void World::kernel_runs(unsigned percent) {
    for (std::size_t port = 0; port < kernel_inboxes_.size(); ++port) {
        while (!kernel_inboxes_[port].empty() && chance_.percent(percent)) {
            kernel_takes_one(port);
        }
    }
}

bool World::to_wire(std::uint8_t port_index, std::span<const std::byte> frame) {
    note("slow path sends", frame);
    events_.push(now_ + scenario_.inject_lag, Kind::injected, 0, 0, packet_of(frame, port_index));
    return true;
}

bool World::replay(std::uint32_t worker_index, std::uint8_t port_index,
                   std::span<const std::byte> frame) {
    note("replayed", frame);
    if (chance_.mille(scenario_.replay_loss_mille)) {
        return false;
    }
    events_.push(now_ + scenario_.inject_lag, Kind::injected,
                 static_cast<std::uint8_t>(worker_index), 1, packet_of(frame, port_index));
    return true;
}

std::expected<FlowKey, int> World::key_of(int socket, const abi::LegFacts& facts) {
    if (facts.own_port != 0) {
        return key_told_by(facts);
    }
    const KernelSocket& known = kernel_.socket(socket);
    if (known.dead()) {
        return std::unexpected(ENOTCONN);
    }
    return FlowKey{.peer_address = known.peer.address,
                   .own_address = known.own.address,
                   .peer_port = known.peer.port,
                   .own_port = known.own.port};
}

std::size_t World::unread_bytes(int socket) {
    kernel_runs();
    return kernel_.socket(socket).tcp.unread().size();
}

std::size_t World::unacknowledged_bytes(int socket) {
    kernel_runs();
    return kernel_.socket(socket).tcp.unacknowledged_bytes();
}

std::expected<std::size_t, int> World::move_unread(int from, int to) {
    KernelSocket& source = kernel_.socket(from);
    KernelSocket& target = kernel_.socket(to);
    if (source.dead() || target.dead() || target.tcp.shut()) {
        return std::unexpected(EPIPE);
    }
    std::size_t size = source.tcp.unread().size();
    if (chance_.percent(scenario_.short_moves_percent)) {
        size = chance_.between<std::size_t>(0, size);
    }
    target.tcp.write(source.tcp.unread().first(size), now_);
    source.tcp.take(size, now_);
    arm_kernel(from);
    arm_kernel(to);
    return size;
}

std::expected<std::size_t, int> World::send(int socket, std::span<const std::byte> bytes) {
    KernelSocket& target = kernel_.socket(socket);
    if (target.dead() || target.tcp.shut()) {
        return std::unexpected(EPIPE);
    }
    const std::size_t size = chance_.percent(scenario_.short_moves_percent)
                                 ? chance_.between<std::size_t>(0, bytes.size())
                                 : bytes.size();
    target.tcp.write(bytes.first(size), now_);
    arm_kernel(socket);
    return size;
}

std::expected<SocketSnapshot, int> World::snapshot(int socket,
                                                   const std::optional<SocketOrigin>& origin) {
    kernel_runs(scenario_.snapshot_runs_percent);
    if (std::cmp_equal(kernel_.socket(socket).leg, scenario_.failed_snapshot)) {
        return std::unexpected(EPERM);
    }
    SocketSnapshot state = kernel_.snapshot(socket, now_);
    if (origin) {  // counted from there, and no clock
        const TcpModel& tcp = kernel_.socket(socket).tcp;
        state.snd_nxt = origin->first_sequence + tcp.acknowledged_count();
        state.rcv_nxt = origin->first_acknowledgement + tcp.received_count();
        state.own_timestamp = 0;
    }
    return state;
}

// The real host closes several at once, some time later.
void World::close_silently(int socket) {
    kernel_runs();
    closing_.push_back(socket);
    events_.push(now_ + chance_.between<Nanoseconds>(0, 20 * millisecond_ns), Kind::close_sockets);
}

void World::close_now() {
    for (const int socket : closing_) {
        kernel_.close_silently(socket);
    }
    closing_.clear();
}

void World::to_stream(std::uint32_t slot, abi::PairRequest&& request, abi::StreamReason reason) {
    if (slot != pair_slot || stream_.live || went_to_stream_) {
        fail("a pair went to the stream engine twice");
    }
    if (trace_) {
        std::fprintf(stderr, "%12.6f to stream: %s\n", static_cast<double>(now_ - start_time) / 1e9,
                     std::string(abi::to_string(reason)).c_str());
    }
    ++ground_.to_stream[static_cast<std::size_t>(reason)];
    went_to_stream_ = true;
    stream_ = {.live = true, .request = std::move(request), .moved = {}, .reset = false};
    stream_.moved = {stream_.request.delivered_to_client_bytes,
                     stream_.request.delivered_to_visitor_bytes};
    kernel_changed(visitor_socket_);
}

void World::ended(const abi::PairEnded& event) {
    ++ends_;
    end_ = event;
    ++ground_.ended[static_cast<std::size_t>(event.reason)];
    if (event.handle != abi::PairHandle{pair_slot, pair_generation}) {
        fail("the wrong pair was reported");
    }
}

void World::from_kernel(std::uint8_t port_index, std::span<const std::byte> frame) {
    note("kernel sends", frame);
    events_.push(in_order(6, scenario_.from_kernel_lag), Kind::leave_kernel, port_index, 0,
                 packet_of(frame, port_index));
}

}  // namespace bore::packet::testing
