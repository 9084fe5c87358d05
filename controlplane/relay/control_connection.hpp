// One connection on the control port from accept until it is a tunnel, a data connection or gone.
// Drives the pure handshake (controlplane/bore) with a socket and a deadline. Control thread only.
//
// 1. begin(): what can be done without waiting. A data connection whose Accept has already arrived
//    is paired here: one recv(2), no coroutine, no registration with the event loop.
// 2. Otherwise a coroutine: wait for bytes or the deadline, feed the handshake, do its step.
// 3. claim_visitor → Pairs; open_tunnel → Tunnels; close → silently, at once, by reset, or by the
//    farewell that lets an Error frame survive: write, shut down, drain 64 KiB or 500 ms, close.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/intrusive/list.hpp>

#include "controlplane/bore/frame.hpp"
#include "controlplane/bore/server_handshake.hpp"
#include "controlplane/relay/context.hpp"
#include "controlplane/relay/descriptor.hpp"
#include "controlplane/relay/sources.hpp"

namespace bore::relay {

class ControlPort;

class ControlConnection : public boost::intrusive::list_base_hook<>,
                          public std::enable_shared_from_this<ControlConnection> {
  public:
    static constexpr std::size_t max_drained_bytes = 64 * 1024;
    static constexpr base::Nanoseconds max_drain_ns = 500 * base::millisecond_ns;

    struct Peer {
        config::IpAddress address;
        std::uint16_t port{0};
        SourceHold source;
    };

    ControlConnection(ControlPort& port, Descriptor socket, Peer peer);
    ControlConnection(const ControlConnection&) = delete;
    ControlConnection& operator=(const ControlConnection&) = delete;
    ~ControlConnection();

    void begin();
    // The relay stops.
    void abort();

    [[nodiscard]] Source& source() const { return *peer_.source; }

  private:
    using Step = protocol::Step;

    enum class Wake : std::uint8_t { readable, timer, aborted };

    // Without waiting
    // What one read into the shared buffer brought.
    [[nodiscard]] Step received(const std::expected<std::size_t, int>& size);
    [[nodiscard]] Step consume(std::string_view bytes);
    [[nodiscard]] Step next_frames();
    [[nodiscard]] Step end_of_stream();
    // Writes what the step says.
    [[nodiscard]] Step act(Step step);
    void write(std::string_view bytes);
    void claim_visitor(const Step& step);
    void close_now(const Step& step);
    void count(const Step& step) const;
    void count_handshake();
    void keep_unread();
    void register_socket();

    [[nodiscard]] Step after(Wake wake);
    [[nodiscard]] Step after(const protocol::Verdict& verdict);

    // Waiting
    [[nodiscard]] boost::asio::awaitable<void> converse(std::shared_ptr<ControlConnection> self,
                                                        Step step);
    [[nodiscard]] boost::asio::awaitable<Step> wait_for_step();
    [[nodiscard]] boost::asio::awaitable<Wake> wait(base::Nanoseconds deadline);
    [[nodiscard]] boost::asio::awaitable<protocol::Verdict> judge();
    [[nodiscard]] boost::asio::awaitable<void> open_tunnel(const Step& step);
    [[nodiscard]] boost::asio::awaitable<void> contest_port(std::uint16_t requested);
    [[nodiscard]] boost::asio::awaitable<void> answer_http();
    [[nodiscard]] boost::asio::awaitable<void> farewell();
    void timer_due();

    [[nodiscard]] int socket() { return waiting_ ? waiting_->native_handle() : raw_.get(); }

    ControlPort& port_;
    const Context& context_;
    Peer peer_;
    protocol::ServerHandshake handshake_;
    protocol::FrameReader reader_;
    base::Nanoseconds begun_at_{0};
    std::uint64_t read_bytes_{0};
    std::string unread_;  // bytes that must outlive a wait
    bool spoken_{false};  // the peer has sent something
    bool http_{false};
    bool timer_fired_{false};
    bool aborted_{false};
    // The socket is in one of the two: raw until the first wait.
    Descriptor raw_;
    std::optional<boost::asio::posix::stream_descriptor> waiting_;
    Timer timer_{Timer::calling<&ControlConnection::timer_due>(this)};
};

}  // namespace bore::relay
