// The tunnel client's side of a handshake, for control connections and for data connections, in
// both dialects (wire-protocol §5). A state machine without socket, clock or log, driven like
// ServerHandshake. Called by the tunnel client, and by tests as the scripted peer of the server's.
//
// How to drive it: step = start(now); do it: write step.send, then see step.next. `wait`: arm one
// timer at deadline(), read, cut frames with a FrameReader, pass them on while wants_frame().
// `ready` and `failed` end it; FrameReader::take_leftover() then belongs to what follows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "controlplane/bore/authentication.hpp"
#include "controlplane/bore/dialect.hpp"
#include "controlplane/bore/message.hpp"
#include "controlplane/bore/uuid.hpp"
#include "dataplane/base/clock.hpp"

namespace bore::protocol {

struct ClientOptions {
    std::optional<std::string> secret;  // "" is a secret; with sk_ or tk_ in front it is a token
    DialectMode mode = DialectMode::automatic;  // upstream: no secret is a token
    // automatic, shared secret: how long to listen for a Challenge before saying Hello.
    base::Nanoseconds challenge_wait = 400 * base::millisecond_ns;
    base::Nanoseconds reply_timeout = 10 * base::second_ns;  // from start
};

struct ClientStep {
    enum class Next : std::uint8_t { wait, ready, failed };

    // What the user can do about a failure.
    enum class Failure : std::uint8_t {
        none,
        lost,            // end of stream or timeout: try again later
        authentication,  // secret or token: trying again does not help
        port,            // the port asked for: another one may do
        refused,         // any other Error of the relay
        protocol,        // the peer does not speak this protocol
    };

    Next next = Next::wait;
    std::string_view send;   // write first; a view, good until the handshake's next event
    std::uint16_t port = 0;  // ready, control connection: the public port
    // ready, control connection: what to pass to ClientHandshake::data() for its visitors.
    Dialect dialect = Dialect::fork;

    Failure failure = Failure::none;
    std::string text;  // failed: one line for the user
    // failed: the relay waited for the other opening; a new connection in this mode may succeed.
    std::optional<DialectMode> retry_mode;
};

class ClientHandshake {
  public:
    ClientHandshake(const ClientHandshake&) = delete;  // its steps point into it
    ClientHandshake& operator=(const ClientHandshake&) = delete;

    // `options` must outlive the handshake.
    [[nodiscard]] static ClientHandshake control(const ClientOptions& options, std::uint16_t port);
    // `dialect`: as the control connection's `ready` step gave it. Without a shared secret, and in
    // the fork's dialect, the first step is already `ready`.
    [[nodiscard]] static ClientHandshake data(const ClientOptions& options, Dialect dialect,
                                              const Uuid& visitor_id);

    [[nodiscard]] ClientStep start(base::Nanoseconds now);
    [[nodiscard]] ClientStep on_frame(std::string_view json);
    [[nodiscard]] ClientStep on_frame_too_long();
    [[nodiscard]] ClientStep on_end_of_stream();
    // Early calls are harmless and give `wait`.
    [[nodiscard]] ClientStep on_timer(base::Nanoseconds now);

    // Always set while the handshake lives.
    [[nodiscard]] base::Nanoseconds deadline() const;
    [[nodiscard]] bool wants_frame() const { return state_ != State::finished; }

  private:
    enum class State : std::uint8_t {
        before_start,
        wait_challenge,  // shared secret: nothing sent yet
        wait_reply,      // Hello sent
        finished,
    };
    enum class CredentialKind : std::uint8_t { none, secret, token };

    ClientHandshake(const ClientOptions& options, const ClientMessage& request, DialectMode mode);

    [[nodiscard]] bool is_data() const { return std::holds_alternative<Accept>(request_); }
    [[nodiscard]] ClientStep send_request();  // Hello or Accept, behind what is in out_
    [[nodiscard]] ClientStep on_challenge(const Challenge& challenge);
    [[nodiscard]] ClientStep on_hello(const Hello& hello);
    [[nodiscard]] ClientStep on_error(const Error& error);
    [[nodiscard]] ClientStep fail(ClientStep::Failure failure, std::string text);
    [[nodiscard]] ClientStep step(ClientStep::Next next);

    const ClientOptions* options_;
    ClientMessage request_;  // Hello or Accept
    DialectMode mode_;
    CredentialKind credential_;
    State state_ = State::before_start;
    bool challenge_answered_ = false;
    Dialect dialect_ = Dialect::fork;  // who spoke first, as far as known
    base::Nanoseconds started_ = 0;
    std::string out_;
};

}  // namespace bore::protocol
