// What a pair's state machine asks of the world: sockets and pipes, seen as verbs. The drivers
// (io_uring, epoll) and the simulation of the tests implement it. All calls and all answers belong
// to the one thread of a worker. Nothing here blocks.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

#include "dataplane/abi/engine.hpp"

namespace bore::stream {

class Pair;
using abi::Leg;

// The result of a nonblocking call on a socket or pipe: a count of bytes, the end of the stream
// (a read of 0 bytes), "would block", or an errno.
class IoResult {
  public:
    static IoResult moved(std::size_t bytes) { return IoResult(static_cast<std::int64_t>(bytes)); }
    static IoResult failed(int error_number) { return IoResult(-std::int64_t{error_number}); }
    static IoResult would_block() { return failed(EAGAIN); }
    // From a system call's return value and errno.
    static IoResult from_call(std::int64_t returned, int error_number) {
        return returned >= 0 ? IoResult(returned) : failed(error_number);
    }

    [[nodiscard]] bool has_bytes() const { return value_ > 0; }
    [[nodiscard]] bool is_zero() const { return value_ == 0; }
    [[nodiscard]] bool is_would_block() const { return value_ == -EAGAIN; }
    [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(value_); }
    [[nodiscard]] int error_number() const { return static_cast<int>(-value_); }

  private:
    explicit IoResult(std::int64_t value) : value_(value) {}
    std::int64_t value_;
};

// A leg is named by its pair and its side. "The direction of a leg" is the one that reads from it;
// a pipe belongs to a direction.
class Io {
  public:
    virtual ~Io() = default;

    // Binds two connected nonblocking sockets to a slot; the driver owns them from here on. A
    // slot's Pair stays where it is until the driver ends, and is reused.
    virtual Pair& attach(std::uint32_t slot_index, int visitor_socket, int client_socket) = 0;
    // The pair of a slot that was attached before, or nothing.
    [[nodiscard]] virtual Pair* find(std::uint32_t slot_index) = 0;

    // Asynchronous, one of the two at a time per leg.
    // Receive until told otherwise: Pair::on_data / on_end_of_stream / on_error follow, any number
    // of times; on_receive_stopped when it stopped without one of the latter two.
    virtual void receive(Pair& pair, Leg source) = 0;
    // True: stopped now, no further call. False: Pair::on_receive_stopped (or the end, or an error)
    // comes, and data may come before it.
    [[nodiscard]] virtual bool stop_receive(Pair& pair, Leg source) = 0;
    // Pair::on_readable once: at least the low-water mark of bytes waits, or the end, or an error.
    virtual void watch_readable(Pair& pair, Leg source) = 0;

    // Pair::on_writable once, or when the leg fails.
    virtual void watch_writable(Pair& pair, Leg target) = 0;

    // Nonblocking, answered at once.
    // `bytes` is valid until the next read.
    virtual IoResult read(Pair& pair, Leg source, std::size_t max_bytes,
                          std::span<const std::byte>& bytes) = 0;
    virtual IoResult send(Pair& pair, Leg target, std::span<const std::byte> bytes) = 0;
    virtual IoResult fill_pipe(Pair& pair, Leg source, std::size_t max_bytes) = 0;
    // From the pipe of `source`'s direction into the other leg.
    virtual IoResult drain_pipe(Pair& pair, Leg source, std::size_t max_bytes) = 0;
    // True while bytes wait in the socket. Asked when a splice brought none: splice(2) stops in
    // front of TCP's urgent mark, and where a FIN follows it even reports the end there.
    [[nodiscard]] virtual bool has_unread(Pair& pair, Leg source) = 0;
    // 0 or the errno of a leg that can carry a FIN no more.
    [[nodiscard]] virtual int shutdown_write(Pair& pair, Leg target) = 0;
    // 0, or the errno with which the leg was reset or failed, without reading from it.
    [[nodiscard]] virtual int pending_error(Pair& pair, Leg leg) = 0;

    virtual void set_low_water(Pair& pair, Leg source, std::size_t bytes) = 0;
    virtual void quick_ack(Pair& pair, Leg source) = 0;

    // A pipe for the direction of `source`, which becomes bulk; false when there is none to be had.
    [[nodiscard]] virtual bool lend_pipe(Pair& pair, Leg source) = 0;
    // `empty` false: bytes are still in it, so it cannot be lent again.
    virtual void return_pipe(Pair& pair, Leg source, bool empty) = 0;

    // Ends everything that is under way and closes both sockets, by reset or in order (a leg that
    // was not shut down sends its FIN now).
    // Pair::on_closed follows when nothing is left; it may come before close() returns.
    virtual void close(Pair& pair, bool reset) = 0;
};

}  // namespace bore::stream
