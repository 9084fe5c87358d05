// The loop of the slow path, in its order: commands, frames and ends from the workers, frames from
// the kernel, time, events to the control thread; then sleep until one of them wakes it.
#include "drivers/packet_engine/slow_path_thread.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "drivers/kernel/tcp_repair.hpp"

namespace bore::drivers {

using abi::PortCounter;
using abi::SlowPathCounter;
using packet::Frame;

namespace {

// Frames taken from one source before the next gets its turn.
constexpr std::size_t frames_per_source = 64;
constexpr std::size_t commands_per_turn = 256;
constexpr std::size_t flow_events_per_turn = 1'024;
constexpr base::Nanoseconds port_interval_ns = 100 * base::millisecond_ns;
// Sockets of finished hand-offs are closed together: so many, or after so long, which is less than
// the 40 ms after which the kernel would still acknowledge something on them.
constexpr std::size_t most_closing = 64;
constexpr base::Nanoseconds close_delay_ns = 20 * base::millisecond_ns;
constexpr base::Nanoseconds never = ~base::Nanoseconds{0};
constexpr std::size_t max_frame_bytes = 9'600 + 18;

// IPv4 in its mapped form, as in packet::FlowKey.
std::array<std::uint8_t, 16> mapped(const NetworkAddress& address) {
    if (address.size_bytes() == address.bytes.size()) {
        return address.bytes;
    }
    std::array<std::uint8_t, 16> result{};
    result[10] = result[11] = 0xff;
    std::copy_n(address.bytes.begin(), 4, result.begin() + 12);
    return result;
}

base::Nanoseconds processor_time() {
    timespec used{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return static_cast<base::Nanoseconds>(used.tv_sec) * base::second_ns +
           static_cast<base::Nanoseconds>(used.tv_nsec);
}

}  // namespace

SlowPathThread::SlowPathThread(const SlowPathContext& context)
    : context_(context),
      counters_(context.statistics.slow_path()),
      slow_path_(*this, context.table, counters_, context.statistics.slow_path_histograms(),
                 context.statistics.slow_path_rows(), context.options),
      buffer_(max_frame_bytes),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    BORE_CHECK(epoll_ >= 0, "no descriptor for the slow path's epoll");
    const auto watch = [this](int descriptor) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = descriptor;
        BORE_CHECK(::epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event) == 0,
                   "the slow path cannot watch a descriptor");
    };
    watch(context.wake.descriptor());
    for (const EnginePort& port : context.ports) {
        links_.push_back(port.port->link());
        if (port.exception) {
            watch(port.exception->descriptor());
        }
    }
}

SlowPathThread::~SlowPathThread() {
    ::close(epoll_);
}

void SlowPathThread::run() {
    while (!stopping_) {
        const base::Nanoseconds now = base::monotonic_now();
        const bool busy = turn(now);
        counters_.add(SlowPathCounter::slow_path_loops_total);
        counters_.set(SlowPathCounter::slow_path_heartbeat_ns, now);
        if (!busy) {
            sleep(now);
        }
    }
    close_now();
}

bool SlowPathThread::turn(base::Nanoseconds now) {
    bool busy = take_commands(now);
    busy = take_frames(now) || busy;
    busy = take_kernel_frames(now) || busy;
    if (now >= slow_path_.next_deadline(now)) {
        slow_path_.tick(now);
        measure_handoffs(0);
    }
    if (now >= close_due_at_ || closing_.size() >= most_closing) {
        close_now();
    }
    if (now >= ports_due_at_) {
        ports_due_at_ = now + port_interval_ns;
        look_at_ports();
        take_neighbours(now);
        (void)context_.table.collect();
    }
    return send_events() || busy;
}

void SlowPathThread::sleep(base::Nanoseconds now) {
    context_.wake.will_sleep();
    const bool work =
        !context_.commands.empty() ||
        std::any_of(context_.links.begin(), context_.links.end(), [](const auto& link) {
            return !link->diverted.empty() || !link->flow_events.empty();
        });
    if (!work) {
        const base::Nanoseconds due =
            std::min({ports_due_at_, close_due_at_, slow_path_.next_deadline(now)});
        const base::Nanoseconds wait = due > now ? due - now : 0;
        const timespec timeout{.tv_sec = static_cast<time_t>(wait / base::second_ns),
                               .tv_nsec = static_cast<long>(wait % base::second_ns)};
        std::array<epoll_event, 8> events{};
        (void)::epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &timeout,
                             nullptr);
    }
    context_.wake.is_awake();
    context_.wake.clear();
}

// ---- What comes in

bool SlowPathThread::take_commands(base::Nanoseconds now) {
    std::size_t count = 0;
    base::Nanoseconds began = 0;
    for (; count < commands_per_turn; ++count) {
        auto command = context_.commands.pop();
        if (!command) {
            break;
        }
        if (began == 0 && command->kind == SlowPathCommand::Kind::open_pair) {
            began = processor_time();
        }
        carry_out(*command, now);
    }
    measure_handoffs(began);
    return count > 0;
}

void SlowPathThread::carry_out(SlowPathCommand& command, base::Nanoseconds now) {
    using Kind = SlowPathCommand::Kind;
    switch (command.kind) {
        case Kind::open_tunnel:
            slow_path_.open_tunnel(command.tunnel_index, command.public_port, command.limits);
            break;
        case Kind::set_tunnel_limits:
            slow_path_.set_tunnel_limits(command.tunnel_index, command.limits);
            break;
        case Kind::close_tunnel:
            slow_path_.close_tunnel(command.tunnel_index);
            break;
        case Kind::open_pair:
            slow_path_.open_pair(command.pair_slot, command.generation, std::move(command.request),
                                 now);
            break;
        case Kind::close_pair:
            slow_path_.close_pair(command.pair_slot, command.generation, now);
            break;
        case Kind::stream_ended:
            slow_path_.stream_ended(command.pair_slot);
            break;
        case Kind::list_flows:
            publish({.kind = SlowPathEvent::Kind::flows,
                     .flows = std::make_unique<abi::FlowPage>(
                         slow_path_.list_flows(command.flows_from, now))});
            break;
        case Kind::drain:
            slow_path_.drain(command.deadline, now);
            break;
        case Kind::stop:
            stopping_ = true;
            break;
    }
}

bool SlowPathThread::take_frames(base::Nanoseconds now) {
    bool any = false;
    for (std::uint32_t worker = 0; worker < context_.links.size(); ++worker) {
        WorkerLink& link = *context_.links[worker];
        for (std::size_t count = 0; count < frames_per_source; ++count) {
            auto frame = link.diverted.pop();
            if (!frame) {
                break;
            }
            any = true;
            slow_path_.from_wire(worker, frame->port_index, frame->bytes(), now);
            context_.ports[frame->port_index].port->release({&*frame, 1});
        }
        if (link.flow_events_lost.load(std::memory_order_relaxed)) {
            link.flow_events_lost.store(false, std::memory_order_relaxed);
            slow_path_.recheck_flows();
        }
        for (std::size_t count = 0; count < flow_events_per_turn; ++count) {
            const auto event = link.flow_events.pop();
            if (!event) {
                break;
            }
            any = true;
            if (event->kind == packet::FlowEvent::Kind::first_byte) {
                slow_path_.first_byte(event->flow, event->generation, event->at, now);
            } else {
                slow_path_.flow_event(event->flow, event->generation, now);
            }
        }
    }
    return any;
}

bool SlowPathThread::take_kernel_frames(base::Nanoseconds now) {
    bool any = false;
    for (std::size_t index = 0; index < context_.ports.size(); ++index) {
        const auto& exception = context_.ports[index].exception;
        for (std::size_t count = 0; exception && count < frames_per_source; ++count) {
            const std::size_t size = exception->read(buffer_);
            if (size == 0) {
                break;
            }
            any = true;
            slow_path_.from_kernel(static_cast<std::uint8_t>(index), std::span(buffer_).first(size),
                                   now);
        }
    }
    return any;
}

// Ten times a second: a next hop that moved has been unreachable for longer than that. The kernel
// also remembers who asked it for its own link address; only those on the link are next hops.
void SlowPathThread::take_neighbours(base::Nanoseconds now) {
    neighbours_.read([&](const NeighbourChange& change) {
        for (std::size_t index = 0; index < context_.ports.size(); ++index) {
            const auto& exception = context_.ports[index].exception;
            if (exception && exception->index() == change.interface_index &&
                exception->is_on_link(change.address)) {
                slow_path_.neighbour(static_cast<std::uint8_t>(index), mapped(change.address),
                                     change.link_address, now);
            }
        }
    });
}

void SlowPathThread::look_at_ports() {
    for (std::uint32_t index = 0; index < context_.ports.size(); ++index) {
        packet::PacketPort& port = *context_.ports[index].port;
        abi::PortCounters& counters = context_.statistics.port(index);
        const packet::PortStatistics totals = port.statistics();
        counters.set(PortCounter::port_received_packets_total, totals.received_packets);
        counters.set(PortCounter::port_received_bytes_total, totals.received_bytes);
        counters.set(PortCounter::port_sent_packets_total, totals.sent_packets);
        counters.set(PortCounter::port_sent_bytes_total, totals.sent_bytes);
        counters.set(PortCounter::port_missed_total, totals.missed);
        counters.set(PortCounter::port_receive_errors_total, totals.receive_errors);
        counters.set(PortCounter::port_send_errors_total, totals.send_errors);
        counters.set(PortCounter::port_no_buffer_total, totals.no_buffer);
        const packet::LinkState link = port.link();
        counters.set(PortCounter::port_link_up, link.up ? 1 : 0);
        counters.set(PortCounter::port_speed_mbps, link.speed_mbps);
        if (link.up != links_[index].up) {
            counters.add(PortCounter::port_link_changes_total);
        }
        links_[index] = link;
    }
}

// `began` is this thread's processor time before the first of some open_pair(), 0 when others did
// it: most pairs have nothing to drain and are spliced by open_pair(), which, with the closing of
// their sockets later, is then all that their hand-off cost.
void SlowPathThread::measure_handoffs(base::Nanoseconds began) {
    const std::uint64_t handoffs = counters_.get(SlowPathCounter::handoffs_total);
    const std::uint64_t done = handoffs - std::exchange(measured_handoffs_, handoffs);
    if (began != 0 && done != 0) {
        counters_.add(SlowPathCounter::handoff_ns_total, processor_time() - began);
        counters_.add(SlowPathCounter::handoffs_measured_total, done);
    }
}

void SlowPathThread::count_frozen(base::Nanoseconds frozen) {
    counters_.add(SlowPathCounter::handoff_frozen_ns_total, frozen);
    constexpr std::array<base::Nanoseconds, 7> bounds_us{8, 16, 32, 64, 128, 256, 1024};
    const auto bucket = std::find_if(bounds_us.begin(), bounds_us.end(), [frozen](auto bound_us) {
        return frozen < bound_us * base::microsecond_ns;
    });
    counters_.add(static_cast<SlowPathCounter>(
        static_cast<std::size_t>(SlowPathCounter::handoff_frozen_under_8us_total) +
        static_cast<std::size_t>(bucket - bounds_us.begin())));
}

// ---- SlowPathHost: frames

bool SlowPathThread::to_kernel(std::uint8_t port_index, std::span<const std::byte> frame) {
    const auto& exception = context_.ports[port_index].exception;
    return exception && exception->write(frame);
}

bool SlowPathThread::to_wire(std::uint8_t port_index, std::span<const std::byte> frame) {
    // One worker sends all of a port's frames, so that they stay in order.
    return inject(port_index % static_cast<std::uint32_t>(context_.links.size()), port_index, frame,
                  false);
}

bool SlowPathThread::replay(std::uint32_t worker_index, std::uint8_t port_index,
                            std::span<const std::byte> frame) {
    return inject(worker_index, port_index, frame, true);
}

bool SlowPathThread::inject(std::uint32_t worker_index, std::uint8_t port_index,
                            std::span<const std::byte> bytes, bool replay) {
    packet::PacketPort& port = *context_.ports[port_index].port;
    WorkerLink& link = *context_.links[worker_index];
    Frame frame;
    if (link.injected.full() || !port.allocate(frame)) {
        return false;
    }
    frame.port_index = port_index;
    if (bytes.size() > std::size_t{frame.tailroom_bytes} + frame.length_bytes) {
        port.release({&frame, 1});
        return false;
    }
    std::memcpy(frame.data, bytes.data(), bytes.size());
    frame.tailroom_bytes =
        static_cast<std::uint16_t>(frame.tailroom_bytes + frame.length_bytes - bytes.size());
    frame.length_bytes = static_cast<std::uint16_t>(bytes.size());
    const bool pushed = link.injected.push({.frame = frame, .replay = replay});
    BORE_CHECK(pushed, "the ring was not full a moment ago");
    return true;
}

// ---- SlowPathHost: sockets

std::expected<packet::FlowKey, int> SlowPathThread::key_of(int socket, const abi::LegFacts& facts) {
    return drivers::key_of(socket, facts);
}

std::size_t SlowPathThread::unread_bytes(int socket) {
    return drivers::unread_bytes(socket);
}

std::size_t SlowPathThread::unacknowledged_bytes(int socket) {
    return drivers::unacknowledged_bytes(socket);
}

std::expected<std::size_t, int> SlowPathThread::move_unread(int from, int to) {
    return drivers::move_unread(from, to);
}

std::expected<std::size_t, int> SlowPathThread::send(int socket, std::span<const std::byte> bytes) {
    return drivers::send_bytes(socket, bytes);
}

std::expected<packet::SocketSnapshot, int> SlowPathThread::snapshot(
    int socket, const std::optional<packet::SocketOrigin>& origin) {
    return drivers::snapshot(socket, origin);
}

// To close a socket costs the kernel as much as all before, twice as much one at a time as together
// with others, and nobody waits for it.
void SlowPathThread::close_silently(int socket) {
    if (closing_.empty()) {
        close_due_at_ = base::monotonic_now() + close_delay_ns;
    }
    closing_.push_back(socket);
}

void SlowPathThread::freezing() {
    frozen_at_ = base::monotonic_now();
}

void SlowPathThread::spliced() {
    count_frozen(base::monotonic_now() - frozen_at_);
}

void SlowPathThread::close_now() {
    close_due_at_ = never;
    if (closing_.empty()) {
        return;
    }
    const base::Nanoseconds began = processor_time();
    std::ranges::for_each(closing_, drivers::close_silently);
    closing_.clear();
    counters_.add(SlowPathCounter::handoff_ns_total, processor_time() - began);
}

// ---- SlowPathHost: results

void SlowPathThread::to_stream(std::uint32_t pair_slot, abi::PairRequest&& request,
                               abi::StreamReason reason) {
    publish({.kind = SlowPathEvent::Kind::to_stream,
             .pair_slot = pair_slot,
             .request = std::move(request),
             .reason = reason});
}

void SlowPathThread::ended(const abi::PairEnded& event) {
    publish(
        {.kind = SlowPathEvent::Kind::ended, .pair_slot = event.handle.slot_index, .end = event});
}

void SlowPathThread::publish(SlowPathEvent&& event) {
    waiting_events_.push_back(std::move(event));
}

bool SlowPathThread::send_events() {
    bool any = false;
    while (!waiting_events_.empty() && context_.events.push(std::move(waiting_events_.front()))) {
        waiting_events_.pop_front();
        any = true;
    }
    if (any) {
        context_.announcements.signal();
    }
    return any;
}

}  // namespace bore::drivers
