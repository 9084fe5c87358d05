// A visitor that exchanges requests and responses, and what rr, crr, idle, soak and chaos share.
// The visitor knows one exchange at a time; its owner decides what follows. It is a slot: after a
// failure or a close it can connect again, and it lives as long as the loop runs.
#pragma once

#include <cstdint>
#include <string>

#include "bench/load/event_loop.hpp"
#include "bench/load/payload.hpp"
#include "bench/load/run.hpp"

namespace bore::bench {

class ExchangeVisitor;

class ExchangeOwner {
  public:
    ExchangeOwner() = default;
    ExchangeOwner(const ExchangeOwner&) = delete;
    ExchangeOwner& operator=(const ExchangeOwner&) = delete;
    virtual ~ExchangeOwner() = default;

    // Established; `took` since the start of the connect.
    virtual void on_connected(ExchangeVisitor&, base::Nanoseconds /*took*/) {}
    // The whole response is here, and right; began_at is when its connect or its request started.
    virtual void on_response(ExchangeVisitor& visitor, base::Nanoseconds began_at) = 0;
    // The connection could not be made, ended unasked, stalled or carried wrong bytes. It is closed
    // and counted with the part's failures. Never called from within connect().
    virtual void on_failure(ExchangeVisitor& visitor) = 0;
};

class ExchangeVisitor final : public Handler {
  public:
    // The opening says what the service is to do; its work is `requests`.
    ExchangeVisitor(Part& part, const Opening& opening, ExchangeOwner& owner)
        : part_(part), opening_(opening), owner_(owner) {}

    // Connects; the opening leaves when that is done, together with a first request if wanted.
    void connect(bool with_request);
    // Only when connected and no response is due.
    void send_request();
    void close();
    // Fails it when it has made no progress for the time of --stall-s.
    void sweep(base::Nanoseconds now);
    // Fails it as stalled if it is at work: the run ends.
    void give_up();

    [[nodiscard]] bool is_open() const { return connection_.valid(); }
    [[nodiscard]] bool is_idle() const { return is_open() && !connecting_ && !awaiting_; }
    [[nodiscard]] base::Nanoseconds began_at() const { return began_at_; }

    // The owner's own: which request this is, when it was intended.
    base::Nanoseconds intended_at = 0;

    void on_ready(std::uint32_t events) override;

  private:
    void on_connected();
    void send_rest();
    void receive();
    void expect_silence();
    void fail(Reason reason, const char* what);

    Part& part_;
    Opening opening_;
    ExchangeOwner& owner_;
    Descriptor connection_;
    bool connecting_ = false;
    bool awaiting_ = false;  // a response
    bool peer_ended_ = false;
    base::Nanoseconds began_at_ = 0;
    base::Nanoseconds progress_at_ = 0;
    PatternSender sender_;
    PatternReceiver receiver_;
};

}  // namespace bore::bench
