// The slow path on its thread: between the workers' rings, the exception interfaces, the sockets of
// pairs on their way, and the control thread. The decisions are packet::SlowPath's.
#pragma once

#include <atomic>
#include <deque>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dataplane/abi/statistics.hpp"
#include "dataplane/base/spsc_ring.hpp"
#include "dataplane/packet/slow_path.hpp"
#include "drivers/kernel/neighbour_watch.hpp"
#include "drivers/kernel/wake_event.hpp"
#include "drivers/packet_engine/messages.hpp"
#include "drivers/packet_engine/packet_engine.hpp"

namespace bore::drivers {

struct SlowPathContext {
    std::span<const EnginePort> ports;
    packet::FlowTable& table;
    abi::Statistics& statistics;
    std::span<std::unique_ptr<WorkerLink>> links;  // by packet worker
    base::SpscRing<SlowPathCommand>& commands;
    base::SpscRing<SlowPathEvent>& events;
    WakeEvent& wake;           // others wake the slow path
    WakeEvent& announcements;  // it tells the control thread that events wait
    packet::SlowPathOptions options;
};

class SlowPathThread final : private packet::SlowPathHost {
  public:
    explicit SlowPathThread(const SlowPathContext& context);
    ~SlowPathThread() override;

    void run();  // until the command `stop`

  private:
    // ---- SlowPathHost
    bool to_kernel(std::uint8_t port_index, std::span<const std::byte> frame) override;
    bool to_wire(std::uint8_t port_index, std::span<const std::byte> frame) override;
    bool replay(std::uint32_t worker_index, std::uint8_t port_index,
                std::span<const std::byte> frame) override;
    std::expected<packet::FlowKey, int> key_of(int socket, const abi::LegFacts& facts) override;
    std::size_t unread_bytes(int socket) override;
    std::size_t unacknowledged_bytes(int socket) override;
    std::expected<std::size_t, int> move_unread(int from, int to) override;
    std::expected<std::size_t, int> send(int socket, std::span<const std::byte> bytes) override;
    std::expected<packet::SocketSnapshot, int> snapshot(
        int socket, const std::optional<packet::SocketOrigin>& origin) override;
    void close_silently(int socket) override;
    void close_now() override;
    void freezing() override;
    void spliced() override;
    void to_stream(std::uint32_t pair_slot, abi::PairRequest&& request,
                   abi::StreamReason reason) override;
    void ended(const abi::PairEnded& event) override;

    [[nodiscard]] bool turn(base::Nanoseconds now);
    [[nodiscard]] bool take_commands(base::Nanoseconds now);
    void carry_out(SlowPathCommand& command, base::Nanoseconds now);
    [[nodiscard]] bool take_frames(base::Nanoseconds now);
    [[nodiscard]] bool take_kernel_frames(base::Nanoseconds now);
    void take_neighbours(base::Nanoseconds now);
    [[nodiscard]] bool send_events();
    void publish(SlowPathEvent&& event);
    [[nodiscard]] bool inject(std::uint32_t worker_index, std::uint8_t port_index,
                              std::span<const std::byte> bytes, bool replay);
    void look_at_ports();
    void measure_handoffs(base::Nanoseconds began);
    void count_frozen(base::Nanoseconds frozen);
    void sleep(base::Nanoseconds now);

    SlowPathContext context_;
    abi::SlowPathCounters& counters_;
    packet::SlowPath slow_path_;
    std::deque<SlowPathEvent> waiting_events_;  // those that found the ring full
    std::vector<std::byte> buffer_;             // one frame from the kernel
    std::vector<packet::LinkState> links_;      // by port, as last looked at
    int epoll_;
    NeighbourWatch neighbours_;
    base::Nanoseconds ports_due_at_{0};
    base::Nanoseconds frozen_at_{0};  // the latest freeze
    std::vector<int> closing_;        // sockets of finished ones
    base::Nanoseconds close_due_at_{~base::Nanoseconds{0}};
    std::uint64_t measured_handoffs_{0};
    bool stopping_{false};
};

}  // namespace bore::drivers
