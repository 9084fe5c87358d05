// The loop, in its order: what the slow path injected, then each port, then held frames that are
// due; then a quiescent point and, where nothing came, rest.
#include "drivers/packet_engine/packet_worker.hpp"

#include <time.h>

#include <algorithm>

#include "dataplane/base/clock.hpp"

namespace bore::drivers {

using abi::PacketReason;
using abi::PacketWorkerCounter;
using packet::Frame;

namespace {

// Turns without work before a worker begins to rest: at 20–50 ns each a few microseconds, less than
// the gap between two packets of a busy connection.
constexpr std::uint32_t idle_turns_before_rest = 128;
constexpr std::uint32_t max_pauses = 64;
constexpr std::uint32_t pause_step_ns = 20;
constexpr std::uint32_t longest_pause_ns = 2'000;  // 30 packets of 64 bytes at 10 Gbit/s
constexpr std::uint32_t shortest_sleep_us = 20;
constexpr std::uint32_t longest_sleep_us = 200;

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

PacketWorker::PacketWorker(const PacketWorkerContext& context)
    : context_(context),
      queue_(static_cast<std::uint16_t>(context.worker_index)),
      counters_(context.statistics.packet_worker(context.worker_index)),
      histograms_(context.statistics.packet_worker_histograms(context.worker_index)),
      pipeline_(context.worker_index, context.table, counters_,
                context.statistics.packet_worker_rows(context.worker_index), *this),
      shaper_(context.tunnels, {.tunnel_count = context.statistics.tunnel_capacity(),
                                .slot_count = held_frames_per_worker}) {
    pipeline_.set_shaper(&shaper_);
}

void PacketWorker::run() {
    context_.table.online(context_.worker_index);
    std::uint32_t idle_turns = 0;
    base::CoarseClock clock;  // eight full turns take some 20 µs; limits look ahead by milliseconds
    base::Nanoseconds busy_since = 0;  // the turn before was busy and began then
    while (!stopping_.load(std::memory_order_relaxed)) {
        const base::Nanoseconds now = clock.now();
        if (busy_since != 0) {
            counters_.add(PacketWorkerCounter::packet_busy_ns_total, now - busy_since);
        }
        const bool busy = turn(now);
        busy_since = busy ? now : 0;
        if (!had_full_burst_) {
            clock.expire();  // there is time for the exact one
        }
        context_.table.quiescent(context_.worker_index);
        counters_.add(PacketWorkerCounter::packet_loops_total);
        counters_.set(PacketWorkerCounter::packet_heartbeat_ns, now);
        if (busy) {
            idle_turns = 0;
        } else {
            counters_.add(PacketWorkerCounter::packet_idle_loops_total);
            if (++idle_turns > idle_turns_before_rest) {
                rest(idle_turns - idle_turns_before_rest);
            }
        }
    }
    // The slow path has ended and puts nothing in any more: its last resets go out.
    while (take_injected(base::monotonic_now())) {
    }
    for (std::size_t count = 1; count > 0;) {
        count = shaper_.abandon(frames_);
        release(std::span(frames_).first(count));
    }
    context_.table.offline(context_.worker_index);
}

bool PacketWorker::turn(base::Nanoseconds now) {
    bool busy = take_injected(now);
    had_full_burst_ = false;
    for (const EnginePort& engine_port : context_.ports) {
        const std::size_t count = engine_port.port->receive(queue_, frames_);
        had_full_burst_ |= count == frames_.size();
        if (count > 0) {
            histograms_.record(abi::PacketWorkerHistogram::packet_burst_frames, count);
            pipeline_.process(std::span(frames_).first(count), now);
            busy = true;
        }
    }
    return send_due(now) || busy;
}

bool PacketWorker::send_due(base::Nanoseconds now) {
    if (shaper_.held_frames() == 0) {
        return false;
    }
    const std::size_t count = shaper_.release_due(now, frames_);
    send(std::span(frames_).first(count));
    return true;  // a limited tunnel waits for its moment: no sleep meanwhile
}

bool PacketWorker::take_injected(base::Nanoseconds now) {
    std::size_t replay_count = 0;
    bool any = false;
    for (std::size_t count = 0; count < packet::max_burst; ++count) {
        auto injected = context_.link.injected.pop();
        if (!injected) {
            break;
        }
        any = true;
        if (injected->replay) {
            frames_[replay_count++] = injected->frame;
        } else {
            send_to(injected->frame.port_index, {&injected->frame, 1});
        }
    }
    if (replay_count > 0) {
        pipeline_.process(std::span(frames_).first(replay_count), now);
    }
    return any;
}

void PacketWorker::rest(std::uint32_t idle_turns) {
    switch (context_.idle) {
        case IdleMode::spin:
            return;
        case IdleMode::pause:
            if (context_.power_pause != nullptr) {
                context_.power_pause(std::min(idle_turns * pause_step_ns, longest_pause_ns));
                return;
            }
            for (std::uint32_t count = std::min(idle_turns, max_pauses); count > 0; --count) {
                relax();
            }
            return;
        case IdleMode::sleep:
            break;
    }
    const std::uint32_t sleep_us = std::min(shortest_sleep_us + idle_turns / 16, longest_sleep_us);
    context_.table.offline(context_.worker_index);
    const timespec duration{.tv_sec = 0, .tv_nsec = static_cast<long>(sleep_us) * 1000};
    ::nanosleep(&duration, nullptr);
    context_.table.online(context_.worker_index);
}

// ---- Outlet

void PacketWorker::send(std::span<Frame> frames) {
    // Runs of one port; with the usual two ports a burst has one run, because what comes in on one
    // leaves on the other.
    while (!frames.empty()) {
        const std::size_t count = packet::leading_of_one_port(frames);
        send_to(frames.front().port_index, frames.first(count));
        frames = frames.subspan(count);
    }
}

void PacketWorker::send_to(std::uint8_t port_index, std::span<Frame> frames) {
    const std::size_t sent = port(port_index).transmit(queue_, frames);
    counters_.add(PacketWorkerCounter::packets_sent_total, sent);
    if (sent < frames.size()) {
        // A full queue is a full link: waiting would only move the loss to the receive side.
        counters_.add(abi::counter_of(PacketReason::transmit_full), frames.size() - sent);
        port(port_index).release(frames.subspan(sent));
    }
}

void PacketWorker::divert(std::span<Frame> frames) {
    std::size_t count = 0;
    for (; count < frames.size(); ++count) {
        if (!context_.link.diverted.push(Frame(frames[count]))) {
            break;
        }
    }
    context_.slow_path_wake.wake();
    if (count < frames.size()) {
        counters_.add(abi::counter_of(PacketReason::slow_path_full), frames.size() - count);
        release(frames.subspan(count));
    }
}

void PacketWorker::drop(std::span<Frame> frames) {
    release(frames);
}

void PacketWorker::release(std::span<Frame> frames) {
    for (Frame& frame : frames) {
        port(frame.port_index).release({&frame, 1});
    }
}

bool PacketWorker::allocate(std::uint8_t port_index, Frame& frame) {
    return port(port_index).allocate(frame);
}

void PacketWorker::flow_event(const packet::FlowEvent& event) {
    if (!context_.link.flow_events.push(packet::FlowEvent(event))) {
        context_.link.flow_events_lost.store(true, std::memory_order_relaxed);
    }
    // A first byte waits until the slow path turns for something else, 100 ms at most: waking it
    // would be a system call for each pair.
    if (event.kind == packet::FlowEvent::Kind::end) {
        context_.slow_path_wake.wake();
    }
}

}  // namespace bore::drivers
