// One core, two ports that read their captures without end, each port's packets out of the other:
// the loop of a packet worker, and what is left of it when stages are taken away. The differences
// between the modes are what the stages cost.
//
//   io       frames received and sent as they are
//   parse    and parsed and hashed, their buckets prefetched
//   rounds   the same, of segments whose numbers were moved on first, as splice has them
//   look-up  parsed, hashed and found in the table
//   splice   the whole packet path
#include <sched.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <vector>

#include "bench/load/json_line.hpp"
#include "bench/packet/cycles.hpp"
#include "bench/packet/flows.hpp"
#include "bench/packet/modes.hpp"
#include "dataplane/base/clock.hpp"
#include "dataplane/packet/express.hpp"
#include "dataplane/packet/pipeline.hpp"
#include "drivers/dpdk/eal.hpp"
#include "drivers/dpdk/memory.hpp"
#include "drivers/dpdk/port.hpp"

namespace bore::bench {

namespace {

using packet::DirectionIndex;
using packet::FlowTable;
using packet::Frame;
using packet::max_burst;

// Sends as a packet worker does. Nothing here should be dropped or diverted: it is counted.
class Wires final : public packet::Outlet {
  public:
    explicit Wires(drivers::Ports& ports) : ports_(ports) {}

    void send(std::span<Frame> frames) override {
        while (!frames.empty()) {
            const std::size_t count = packet::leading_of_one_port(frames);
            send_to(frames.front().port_index, frames.first(count));
            frames = frames.subspan(count);
        }
    }
    void send_to(std::uint8_t port_index, std::span<Frame> frames) {
        packet::PacketPort& port = *ports_[port_index];
        const std::size_t sent = port.transmit(0, frames);
        sent_ += sent;
        if (sent < frames.size()) {
            port.release(frames.subspan(sent));
        }
    }
    void divert(std::span<Frame> frames) override { drop(frames); }
    void drop(std::span<Frame> frames) override {
        strays_ += frames.size();
        for (Frame& frame : frames) {
            ports_[frame.port_index]->release({&frame, 1});
        }
    }
    bool allocate(std::uint8_t port_index, Frame& frame) override {
        return ports_[port_index]->allocate(frame);
    }
    void flow_event(const packet::FlowEvent& /*event*/) override { ++strays_; }

    [[nodiscard]] std::uint64_t sent() const { return sent_; }
    [[nodiscard]] std::uint64_t strays() const { return strays_; }

  private:
    drivers::Ports& ports_;
    std::uint64_t sent_{0};
    std::uint64_t strays_{0};
};

// A capture repeats itself, a connection does not: every round of the file, the sequence numbers of
// its segments go on where the round before ended, and they acknowledge what the other port has
// sent two rounds ago at the latest. (Their checksums are then wrong, which nobody notices: the
// packet path changes them by differences.)
class Rounds {
  public:
    Rounds(std::uint32_t packet_count, std::uint32_t payload_bytes)
        : packet_count_(packet_count), payload_bytes_(payload_bytes) {}

    void advance(std::span<Frame> frames, bool ipv6) {
        if (payload_bytes_ == 0) {
            return;
        }
        const std::size_t sequence_at = 14U + (ipv6 ? 40U : 20U) + 4U;
        while (!frames.empty()) {
            const std::size_t count =
                std::min<std::size_t>(frames.size(), packet_count_ - position_);
            for (const Frame& frame : frames.first(count)) {
                std::byte* at = frame.data + sequence_at;
                packet::store32(at, packet::load32(at) + sent_bytes_);
                packet::store32(at + 4, packet::load32(at + 4) + acknowledged_bytes_);
            }
            frames = frames.subspan(count);
            position_ += static_cast<std::uint32_t>(count);
            if (position_ == packet_count_) {
                position_ = 0;
                acknowledged_bytes_ = sent_bytes_;
                sent_bytes_ += payload_bytes_;
            }
        }
    }

  private:
    std::uint32_t packet_count_;
    std::uint32_t payload_bytes_;
    std::uint32_t position_{0};
    std::uint32_t sent_bytes_{0};          // by each flow in the rounds before this one
    std::uint32_t acknowledged_bytes_{0};  // of the other port's
};

class Forwarder {
  public:
    Forwarder(const ForwardOptions& options, FlowTable& table, drivers::Ports& ports)
        : options_(options),
          table_(table),
          ports_(ports),
          wires_(ports),
          pipeline_(0, table, counters_, rows_, wires_),
          rounds_{Rounds(options.flow_count, options.payload_bytes),
                  Rounds(options.flow_count, options.payload_bytes)} {}

    // Turns of the loop until the clock says so; returns frames received.
    std::uint64_t run(double seconds) {
        std::uint64_t received = 0;
        const auto end = cycles() + static_cast<std::uint64_t>(seconds * frequency_);
        while (cycles() < end) {
            for (int turn_count = 0; turn_count < 256; ++turn_count) {
                received += turn();
            }
        }
        return received;
    }
    [[nodiscard]] std::uint64_t failures() const { return wires_.strays() + missing_; }
    [[nodiscard]] std::uint64_t sent() const { return wires_.sent(); }
    [[nodiscard]] double frequency() const { return frequency_; }

  private:
    std::uint64_t turn() {
        const base::Nanoseconds now = clock_.now();
        std::uint64_t received = 0;
        for (std::uint8_t port = 0; port < 2; ++port) {
            const std::size_t count = ports_[port]->receive(0, frames_);
            received += count;
            if (count > 0) {
                forward(std::span(frames_).first(count), port, now);
            }
        }
        table_.quiescent(0);
        return received;
    }

    void forward(std::span<Frame> frames, std::uint8_t port, base::Nanoseconds now) {
        if (options_.mode == ForwardMode::splice || options_.mode == ForwardMode::rounds) {
            rounds_[port].advance(frames, options_.ipv6);
        }
        if (options_.mode == ForwardMode::splice) {
            pipeline_.process(frames, now);
            return;
        }
        if (options_.mode != ForwardMode::io) {
            parse(frames);
        }
        if (options_.mode == ForwardMode::look_up) {
            look_up(frames.size());
        }
        wires_.send_to(static_cast<std::uint8_t>(port ^ 1U), frames);
    }

    void parse(std::span<const Frame> frames) {
        for (std::size_t index = 0; index < frames.size(); ++index) {
            packet::TcpView& view = views_[index];
            if (packet::parse_usual(frames[index].bytes(), view) != abi::PacketReason::spliced) {
                ++missing_;
            }
            const FlowTable::Key4 key = packet::express::key_of(frames[index].data);
            keys_[index] = key;
            hashes_[index] = table_.hash4(key);
            table_.prefetch_bucket(hashes_[index]);
        }
    }

    void look_up(std::size_t count) {
        std::array<DirectionIndex, max_burst> candidates;
        for (std::size_t index = 0; index < count; ++index) {
            candidates[index] = table_.candidate4(hashes_[index]);
        }
        for (std::size_t index = 0; index < count; ++index) {
            const DirectionIndex found =
                table_.confirm4(keys_[index], hashes_[index], candidates[index]);
            missing_ += static_cast<std::uint64_t>(found == FlowTable::no_direction);
        }
    }

    ForwardOptions options_;
    FlowTable& table_;
    drivers::Ports& ports_;
    Wires wires_;
    abi::PacketWorkerCounters counters_;
    std::array<abi::TunnelCounters, 1> rows_;
    packet::Pipeline pipeline_;
    base::CoarseClock clock_;
    std::array<Rounds, 2> rounds_;
    std::array<Frame, max_burst> frames_;
    std::array<packet::TcpView, max_burst> views_;
    std::array<FlowTable::Key4, max_burst> keys_{};
    std::array<std::uint32_t, max_burst> hashes_{};
    std::uint64_t missing_{0};
    double frequency_{cycles_per_second()};
};

int failed(const std::string& why) {
    std::fprintf(stderr, "bore-packet-bench: %s\n", why.c_str());
    return 1;
}

void pin(int cpu) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(static_cast<std::size_t>(cpu), &cpus);
    ::sched_setaffinity(0, sizeof cpus, &cpus);
}

int measure(const ForwardOptions& options, drivers::Ports& ports) {
    const auto memory = drivers::make_hugepage_memory();
    auto table = FlowTable::make(*memory, options.flow_count, 1, options.seed);
    if (!table || !install_flows(**table, options.flow_count, options.ipv6, options.seed)) {
        return failed("no hugepages for the flow table");
    }
    const auto forwarder = std::make_unique<Forwarder>(options, **table, ports);
    (void)forwarder->run(options.seconds / 4);
    const std::uint64_t start_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    const std::uint64_t packets = forwarder->run(options.seconds);
    const auto spent_ns = static_cast<double>(clock_ns(CLOCK_THREAD_CPUTIME_ID) - start_ns);
    if (forwarder->failures() != 0 || packets == 0) {
        return failed(std::to_string(forwarder->failures()) + " frames were not forwarded");
    }
    const auto count = static_cast<double>(packets);
    JsonLine()
        .add("packets", packets)
        .add("mpps_both_ports", count * 1e3 / spent_ns)
        .add("cycles_per_packet", spent_ns * forwarder->frequency() / 1e9 / count)
        .add("ghz", forwarder->frequency() / 1e9)
        .print();
    return 0;
}

}  // namespace

int run_forward(const ForwardOptions& options) {
    pin(options.cpu);
    drivers::EalOptions eal_options;
    std::vector<drivers::PortOptions> ports(2);
    for (std::size_t index = 0; index < 2; ++index) {
        ports[index].device = "pcap_loop:" + options.captures[index];
        eal_options.devices.push_back(ports[index].device);
    }
    const auto eal = drivers::make_eal(eal_options);
    if (!eal) {
        return failed(eal.error());
    }
    drivers::Eal::register_thread();
    auto made = drivers::make_ports(
        **eal, ports,
        {.reserve_frames = 2 * options.flow_count, .buffer_bytes = options.buffer_bytes});
    if (!made) {
        return failed(made.error());
    }
    return measure(options, *made);
}

}  // namespace bore::bench
