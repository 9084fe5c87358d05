// A visitor that exchanges requests and responses, and what rr, short and idle share.
// The visitor knows one exchange; its owner decides what follows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bench/load/event_loop.hpp"
#include "bench/load/payload.hpp"
#include "bench/load/sockets.hpp"

namespace bore::bench {

class ExchangeVisitor;

class ExchangeOwner {
  public:
    ExchangeOwner() = default;
    ExchangeOwner(const ExchangeOwner&) = delete;
    ExchangeOwner& operator=(const ExchangeOwner&) = delete;
    virtual ~ExchangeOwner() = default;

    // The whole response is here; began_at is when its connect or its request started.
    virtual void on_response(ExchangeVisitor& visitor, base::Nanoseconds began_at) = 0;
    // The connection could not be made, ended unasked, or carried wrong bytes. It is
    // closed.
    virtual void on_failure(ExchangeVisitor& visitor) = 0;
};

class ExchangeVisitor final : public Handler {
  public:
    // The opening says what the service is to do; its work is `requests`.
    ExchangeVisitor(EventLoop& loop, const Endpoint& endpoint, const Opening& opening,
                    ExchangeOwner& owner);

    // Connects; the first request leaves, together with the opening, when that is done.
    void connect();
    // Only after on_response.
    void send_request();
    void close();
    [[nodiscard]] bool is_open() const { return connection_.valid(); }

    void on_ready(std::uint32_t events) override;

  private:
    void send_rest();
    void receive();
    void expect_silence();
    void fail();

    EventLoop& loop_;
    const Endpoint& endpoint_;
    ExchangeOwner& owner_;
    Descriptor connection_;
    bool connecting_ = false;
    bool awaiting_ = false;  // a response
    base::Nanoseconds began_at_ = 0;
    std::vector<std::byte> request_;  // the opening, then the request
    std::vector<std::byte> response_;
    std::vector<std::byte> expected_;
    std::size_t sent_bytes_ = 0;
    std::size_t received_bytes_ = 0;
};

}  // namespace bore::bench
