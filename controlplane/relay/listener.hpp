// Accepts connections from one listening socket, in bursts, for whoever owns it: the control port
// or a tunnel. Survives what accept(2) can throw at it. Control thread only.
//
// 1. The event loop says readable; up to 64 connections are accepted, each goes to the handler.
//    An accept(2) that finds nothing still makes and drops a socket (1.2 µs), so where connections
//    come one by one a burst ends after the first and the event loop is asked again.
// 2. The handler is told that the burst has ended, which is where work is put together (one write
//    for all Connection frames of a burst).
// 3. No descriptor or no memory left: the listener rests, longer each time, and tries again. What
//    comes meanwhile waits in the kernel's backlog.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>

#include <sys/socket.h>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "controlplane/relay/descriptor.hpp"
#include "controlplane/relay/timers.hpp"
#include "dataplane/abi/counters.hpp"

namespace bore::relay {

class Listener : public std::enable_shared_from_this<Listener> {
  public:
    static constexpr int max_burst = 64;
    static constexpr int single_bursts = 8;  // bursts of one after a longer one was tried in vain
    static constexpr base::Nanoseconds min_rest_ns = 20 * base::millisecond_ns;
    static constexpr base::Nanoseconds max_rest_ns = 500 * base::millisecond_ns;

    enum class Flow : std::uint8_t {
        more,   // go on
        pause,  // accept nothing before resume()
        rest,   // descriptors run short: try again soon
    };

    class Handler {
      public:
        // The socket is nonblocking. May close the listener.
        [[nodiscard]] virtual Flow on_accepted(Descriptor socket, const sockaddr_storage& peer) = 0;
        virtual void on_burst_ended() = 0;

      protected:
        ~Handler() = default;
    };

    // `handler` must live until close().
    Listener(boost::asio::io_context& io, Timers& timers, abi::ControlCounters& counters,
             Descriptor socket, Handler& handler);

    void start() { wait(); }
    void resume();
    // Nobody can connect from now on, and the port stays taken.
    void shut();
    // Undoes it; errno where that is not possible.
    [[nodiscard]] std::expected<void, int> reopen();
    void close();

  private:
    void wait();
    void accept_burst();
    [[nodiscard]] Flow after_error(int error_number);
    void rest();
    void rested();

    boost::asio::posix::stream_descriptor socket_;
    Timers& timers_;
    abi::ControlCounters& counters_;
    Handler* handler_;  // null once closed
    base::Nanoseconds rest_ns_{min_rest_ns};
    int single_bursts_left_{0};
    bool waiting_{false};
    bool paused_{false};
    bool shut_{false};
    Timer rest_timer_{Timer::calling<&Listener::rested>(this)};
};

}  // namespace bore::relay
