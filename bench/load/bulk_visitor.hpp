// A visitor with one transfer: down, up, or both at once, of a size or until it is stopped. Used by
// bulk, and again and again by soak. Its end is judged here: intact, or failed with a reason that
// is counted with the part's failures.
//   down  the size is complete, or the visitor has had enough and closes
//   up    the size is sent, or FIN; the service reports what arrived
//   both  the two at once on one connection; the service's FIN says that it has everything
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "bench/load/event_loop.hpp"
#include "bench/load/payload.hpp"
#include "bench/load/run.hpp"

namespace bore::bench {

class BulkVisitor final : public Handler {
  public:
    // Called once for each connect(), when the transfer has ended or failed.
    using OnEnd = std::function<void(BulkVisitor&)>;

    // `read_bytes_per_s`: a slow reader; 0 reads what comes.
    BulkVisitor(Part& part, OnEnd on_end, std::uint64_t read_bytes_per_s = 0);

    // A new transfer; the last one's figures are gone.
    void connect(const Opening& opening);
    // Says what is wanted. Separate from connecting, so that all streams can start together.
    void start();
    // The time is over; what is on its way may still arrive, unless `abrupt`.
    void stop(bool abrupt);
    // Not complete at the end.
    void give_up();
    void sweep(base::Nanoseconds now);

    [[nodiscard]] base::Nanoseconds began_at() const { return began_at_; }
    [[nodiscard]] bool is_connecting() const { return state_ == State::connecting; }
    [[nodiscard]] bool is_connected() const { return state_ == State::connected; }
    [[nodiscard]] bool has_ended() const { return state_ == State::ended; }
    [[nodiscard]] bool is_intact() const { return intact_; }
    [[nodiscard]] std::uint64_t down_bytes() const { return receiver_.received_bytes(); }
    // As the service reports; as sent where it does not, and nothing if the transfer failed.
    [[nodiscard]] std::uint64_t up_bytes() const {
        return reported_bytes_.value_or(intact_ ? sender_.sent_bytes() : 0);
    }
    // Of a transfer that failed: due and not arrived, or sent and not confirmed.
    [[nodiscard]] std::uint64_t lost_bytes() const;
    [[nodiscard]] std::optional<std::uint64_t> first_corrupt_offset() const { return corrupt_at_; }

    void on_ready(std::uint32_t events) override;

  private:
    enum class State : std::uint8_t { ended, connecting, connected, running };

    void on_connected();
    void send_some();
    void finish_sending();
    void receive();
    void receive_some();
    void expect_fin();
    void receive_report();
    void refill();
    void watch(bool readable, bool writable);
    void end_well();
    void fail(Reason reason, const std::string& what);
    void fail_with_errno();
    void end(bool intact);

    Part& part_;
    OnEnd on_end_;
    const std::uint64_t read_bytes_per_s_;  // 0: no limit
    std::uint64_t budget_bytes_ = endless;
    Descriptor connection_;
    Opening opening_;
    State state_ = State::ended;
    PatternSender sender_;
    PatternReceiver receiver_;
    std::array<std::byte, report_size_bytes> report_{};
    std::size_t report_filled_ = 0;
    std::optional<std::uint64_t> reported_bytes_;
    std::optional<std::uint64_t> corrupt_at_;
    base::Nanoseconds began_at_ = 0;
    base::Nanoseconds started_at_ = 0;
    base::Nanoseconds progress_at_ = 0;
    bool sending_ = false;
    bool stopped_ = false;
    bool intact_ = false;
};

}  // namespace bore::bench
