// The relay's kernel in the hand-off simulation: a socket per connection to the tunnel's port and
// the control port. Nothing stops it from receiving while its state is read, nor from acknowledging
// what it received; that is the point of the exercise.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <expected>
#include <span>

#include "dataplane/packet/slow_path.hpp"
#include "tests/packet/simulation_scenario.hpp"
#include "tests/packet/tcp_model.hpp"

namespace bore::packet::testing {

class KernelOutput {
  public:
    virtual ~KernelOutput() = default;
    virtual void from_kernel(std::uint8_t port_index, std::span<const std::byte> frame) = 0;
};

struct KernelSocket final : TcpModel::Output {
    void emit(TcpModel& from, const WireSegment& segment) override;

    TcpModel tcp;
    WireEnd own;
    WireEnd peer;
    KernelOutput* output{nullptr};
    std::size_t leg{0};
    std::uint8_t port_index{0};
    bool exists{false};
    bool accepted{false};
    bool orphaned{false};  // nobody holds its descriptor any more
    Nanoseconds armed_at{never};

    [[nodiscard]] bool established() const {
        return exists && tcp.state() == TcpModel::State::open && !tcp.fin_received() && !tcp.shut();
    }
    [[nodiscard]] bool dead() const { return !exists || tcp.state() == TcpModel::State::reset; }
};

class SimulatedKernel {
  public:
    void start(const Scenario& scenario, KernelOutput& output) {
        scenario_ = &scenario;
        output_ = &output;
        sockets_.clear();
    }
    // The socket that the frame changed, or -1.
    int arrive(std::uint8_t port_index, std::span<const std::byte> frame, Nanoseconds now);
    void close(int descriptor, Nanoseconds now);  // FIN, or RST when something is unread
    void close_silently(int descriptor);
    [[nodiscard]] SocketSnapshot snapshot(int descriptor, Nanoseconds now);

    [[nodiscard]] KernelSocket& socket(int descriptor) {
        return sockets_[static_cast<std::size_t>(descriptor)];
    }
    [[nodiscard]] int count() const { return static_cast<int>(sockets_.size()); }

  private:
    void refuse(std::uint8_t port_index, const WireHeader& header, const WireSegment& segment);

    const Scenario* scenario_{nullptr};
    KernelOutput* output_{nullptr};
    std::deque<KernelSocket> sockets_;
};

}  // namespace bore::packet::testing
