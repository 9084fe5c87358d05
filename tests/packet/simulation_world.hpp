// The world of one seed of the hand-off simulation: peers, wires, workers, the slow path's host,
// kernel, control plane and stream engine, and the loop over their events. simulation_world.cpp has
// what carries frames, handoff_simulation.cpp what decides and what must hold at the end.
#pragma once

#include <array>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/packet/pipeline.hpp"
#include "dataplane/packet/slow_path.hpp"
#include "tests/packet/handoff_simulation.hpp"
#include "tests/packet/simulation_base.hpp"
#include "tests/packet/simulation_kernel.hpp"
#include "tests/packet/simulation_scenario.hpp"
#include "tests/packet/tcp_model.hpp"

namespace bore::packet::testing {

inline constexpr std::size_t visitor = 0;
inline constexpr std::size_t client = 1;
inline constexpr std::uint32_t tunnel_index = 0;
// Monotonic time at the start: not zero, and tick 3 of the activity clock.
inline constexpr Nanoseconds start_time = 1'000 * base::second_ns;
inline constexpr Nanoseconds time_limit = start_time + 600 * base::second_ns;
inline constexpr std::uint32_t event_limit = 60'000;
using std::string_view_literals::operator""sv;
inline constexpr std::string_view accept_message =
    "{\"Accept\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"}\0"sv;

struct Peer final : TcpModel::Output {
    void emit(TcpModel& from, const WireSegment& segment) override;

    class World* world{nullptr};
    std::size_t index{0};
    TcpModel tcp;
    WireEnd own;
    WireEnd relay;
    std::vector<std::byte> to_send;  // the client's begins with Accept
    std::size_t sent{0};
    std::size_t verified{0};
    bool connected{false};
    bool turn_planned{false};
    Nanoseconds shuts_at{never};
    Nanoseconds armed_at{never};

    [[nodiscard]] bool finished() const {
        return !connected || tcp.state() == TcpModel::State::reset ||
               (tcp.at_end() && tcp.shut() && tcp.all_acknowledged());
    }
};

// What the stream engine would do, on the kernel's sockets.
struct StreamPair {
    bool live{false};
    abi::PairRequest request;
    std::array<std::uint64_t, 2> moved{};  // by source leg
    bool reset{false};
};

class World final : private SlowPathHost, private KernelOutput {
  public:
    World(SimulationGround& ground, std::uint64_t seed, bool trace);
    ~World() override;
    std::string run();

    void peer_emits(std::size_t peer, const WireSegment& segment);
    // ---- From workers
    void transmit(Frame& frame);
    void discard(Frame& frame);
    void divert(std::uint8_t worker, Frame& frame);
    void flow_event(const FlowEvent& event);
    bool allocate(std::uint8_t port_index, Frame& frame);

  private:
    class WorkerOutlet final : public Outlet {
      public:
        WorkerOutlet(World& world, std::uint8_t worker) : world_(world), worker_(worker) {}
        void send(std::span<Frame> frames) override {
            for (Frame& frame : frames) {
                world_.transmit(frame);
            }
        }
        void divert(std::span<Frame> frames) override {
            for (Frame& frame : frames) {
                world_.divert(worker_, frame);
            }
        }
        void drop(std::span<Frame> frames) override {
            for (Frame& frame : frames) {
                world_.discard(frame);
            }
        }
        bool allocate(std::uint8_t port_index, Frame& frame) override {
            return world_.allocate(port_index, frame);
        }
        void flow_event(const FlowEvent& event) override { world_.flow_event(event); }

      private:
        World& world_;
        std::uint8_t worker_;
    };

    // ---- SlowPathHost
    bool to_kernel(std::uint8_t port_index, std::span<const std::byte> frame) override;
    bool to_wire(std::uint8_t port_index, std::span<const std::byte> frame) override;
    bool replay(std::uint32_t worker_index, std::uint8_t port_index,
                std::span<const std::byte> frame) override;
    std::expected<FlowKey, int> key_of(int socket, const abi::LegFacts& facts) override;
    std::size_t unread_bytes(int socket) override;
    std::size_t unacknowledged_bytes(int socket) override;
    std::expected<std::size_t, int> move_unread(int from, int to) override;
    std::expected<std::size_t, int> send(int socket, std::span<const std::byte> bytes) override;
    std::expected<SocketSnapshot, int> snapshot(int socket,
                                                const std::optional<SocketOrigin>& origin) override;
    void close_silently(int socket) override;
    void close_now() override;
    void to_stream(std::uint32_t slot, abi::PairRequest&& request,
                   abi::StreamReason reason) override;
    void ended(const abi::PairEnded& event) override;
    // ---- KernelOutput
    void from_kernel(std::uint8_t port_index, std::span<const std::byte> frame) override;

    [[nodiscard]] Packet* packet_of(std::span<const std::byte> frame, std::uint8_t port_index);
    [[nodiscard]] Nanoseconds in_order(std::size_t queue, Nanoseconds lag);
    void over_wire(std::size_t peer, bool towards_relay, Packet* packet);
    void arrive_at_peer(const Event& event);
    void peer_turn(std::size_t index);
    void plan_peer_turn(std::size_t index, Nanoseconds delay);
    void verify(Peer& peer);
    void arm_peer(Peer& peer);
    void arm_kernel(int descriptor);
    void work(std::uint8_t worker, Packet* packet);
    void plan_slow_tick();
    void control_turn();
    void accept_client(int descriptor);
    [[nodiscard]] abi::LegFacts facts_of(int descriptor);
    void stream_turn();
    void finish_stream(bool reset);
    void command(std::uint64_t which);
    void handle(const Event& event);
    void handle_turn(const Event& event);
    void kernel_takes_one(std::size_t port);
    void kernel_runs() { kernel_runs(scenario_.kernel_runs_percent); }
    void kernel_runs(unsigned percent);
    void kernel_changed(int descriptor);
    void note(const char* what, std::span<const std::byte> frame);
    void fail(const std::string& what);
    [[nodiscard]] std::byte expected_byte(std::size_t source, std::size_t offset) const;
    void check_end();
    void check_smoothness();
    void check_counts();
    void check_first_byte(std::uint64_t handoffs);
    void check_leftovers();

    SimulationGround& ground_;
    PacketPool& pool_;
    EventQueue& events_;
    std::uint64_t seed_;
    bool trace_;
    Chance chance_;
    Scenario scenario_;
    Nanoseconds now_{start_time};
    std::string failure_;
    std::array<Nanoseconds, 9> queue_times_{};
    std::array<Peer, 2> peers_;
    SimulatedKernel kernel_;
    std::array<std::deque<Packet*>, 2> kernel_inboxes_;  // by port
    FlowTable& table_;
    abi::SlowPathCounters counters_;
    abi::SlowPathHistograms histograms_;
    std::array<abi::PacketWorkerCounters, 2> worker_counters_;
    std::array<std::array<abi::TunnelCounters, 1>, 3> rows_;  // workers, slow path
    std::array<WorkerOutlet, 2> outlets_{WorkerOutlet{*this, 0}, WorkerOutlet{*this, 1}};
    std::array<Pipeline, 2> pipelines_;
    std::optional<SlowPath> slow_path_;
    Nanoseconds tick_planned_{never};
    int visitor_socket_{-1};
    int client_socket_{-1};
    bool pair_opened_{false};
    bool visitor_abandoned_{false};
    bool control_planned_{false};
    bool stream_planned_{false};
    StreamPair stream_;
    Nanoseconds settled_at_{never};  // spliced, or on the stream engine
    Nanoseconds finished_at_{never};
    int ends_{0};
    bool went_to_stream_{false};
    std::vector<int> closing_;  // sockets of a finished hand-off that still exist
    abi::PairEnded end_;
};

}  // namespace bore::packet::testing
