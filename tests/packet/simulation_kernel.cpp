#include "tests/packet/simulation_kernel.hpp"

namespace bore::packet::testing {

void KernelSocket::emit(TcpModel& /*from*/, const WireSegment& segment) {
    std::array<std::byte, 1'024> frame;
    const std::size_t length = encode(own, peer, segment, frame.data());
    output->from_kernel(port_index, std::span(frame).first(length));
}

int SimulatedKernel::arrive(std::uint8_t port_index, std::span<const std::byte> frame,
                            Nanoseconds now) {
    WireHeader header;
    WireSegment segment;
    if (!decode(frame, header, segment).empty()) {
        return -1;
    }
    for (int descriptor = count() - 1; descriptor >= 0; --descriptor) {
        KernelSocket& known = socket(descriptor);
        if (known.exists && known.tcp.state() != TcpModel::State::reset &&
            known.tcp.state() != TcpModel::State::closed &&
            known.own.port == header.destination.port && known.peer.port == header.source.port &&
            known.peer.address == header.source.address) {
            known.tcp.arrive(segment, now);
            return descriptor;
        }
    }
    const std::uint16_t port = header.destination.port;
    if (segment.flags != tcp_syn || (port != tunnel_port && port != control_port)) {
        refuse(port_index, header, segment);
        return -1;
    }
    KernelSocket& fresh = sockets_.emplace_back();
    fresh.output = output_;
    fresh.exists = true;
    fresh.own = header.destination;
    fresh.peer = header.source;
    fresh.port_index = port_index;
    fresh.leg = port == tunnel_port ? 0 : 1;
    fresh.tcp.start(fresh, scenario_->peers[fresh.leg].kernel);
    fresh.tcp.accept_syn(segment, now);
    return count() - 1;
}

// RFC 9293, 3.10.7.1
void SimulatedKernel::refuse(std::uint8_t port_index, const WireHeader& header,
                             const WireSegment& segment) {
    if (segment.has(tcp_rst)) {
        return;
    }
    WireSegment reset{.flags = tcp_rst};
    if (segment.has(tcp_ack)) {
        reset.sequence = segment.acknowledgement;
    } else {
        reset.flags |= tcp_ack;
        reset.acknowledgement = segment.sequence + segment.length();
    }
    std::array<std::byte, 256> frame;
    const std::size_t length = encode(header.destination, header.source, reset, frame.data());
    output_->from_kernel(port_index, std::span(frame).first(length));
}

void SimulatedKernel::close(int descriptor, Nanoseconds now) {
    KernelSocket& closed = socket(descriptor);
    closed.orphaned = true;
    if (closed.dead()) {
        return;
    }
    if (!closed.tcp.unread().empty()) {
        closed.tcp.abort(now);
    } else if (!closed.tcp.shut()) {
        closed.tcp.shut_down(now);
    }
}

void SimulatedKernel::close_silently(int descriptor) {
    socket(descriptor).exists = false;
}

SocketSnapshot SimulatedKernel::snapshot(int descriptor, Nanoseconds now) {
    const KernelSocket& known = socket(descriptor);
    const PeerScenario& scenario = scenario_->peers[known.leg];
    return {.established = known.established(),
            .unacknowledged = known.tcp.unacknowledged_bytes() != 0,
            .snd_nxt = known.tcp.end_of_data(),
            .rcv_nxt = known.tcp.receive_next(),
            .peer_window_bytes = known.tcp.send_window(),
            .peer_mss = known.tcp.peer_mss(),
            .peer_window_scale = known.tcp.peer_scale(),
            .own_window_scale = known.tcp.own_scale(),
            .window_scaling = known.tcp.scaling(),
            .timestamps = known.tcp.timestamps(),
            .sack = known.tcp.sack(),
            .unsupported_options = scenario_->unsupported_options,
            .own_timestamp = (known.tcp.clock(now) & ~1U) + 1,
            .round_trip_us = scenario.kernel_round_trip_us,
            .received_bytes = known.tcp.received_count()};
}

}  // namespace bore::packet::testing
