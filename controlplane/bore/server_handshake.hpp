// The relay's side of one connection on the control port, from accept to the moment where it is a
// tunnel, a data connection or closed (wire-protocol §5 and §8). A state machine without socket,
// clock or log: events go in, each gives one Step. Called by the relay's connection coroutine.
//
// How to drive it:
//   1. step = start(now, hint); do the step. "Do" always means: write step.send, then see
//   step.next.
//   2. `wait`: arm one timer at deadline(), read. Bytes: on_bytes(), then every frame that a
//      FrameReader finds while wants_frame(): on_frame(). Reader says too_long:
//      on_frame_too_long(). End of file: FrameReader::finish(), a last frame first, then
//      on_end_of_stream(). Timer: on_timer(now).
//   3. `verify`: have credential() judged, now or later, and call on_verdict(). Frames behind it
//      stay in the reader; the deadline still counts.
//   4. Anything else ends the handshake. FrameReader::take_leftover() then belongs to the stream.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "controlplane/bore/authentication.hpp"
#include "controlplane/bore/dialect.hpp"
#include "controlplane/bore/message.hpp"
#include "controlplane/bore/uuid.hpp"
#include "dataplane/base/clock.hpp"

namespace bore::protocol {

struct HandshakeOptions {
    bool has_secret = false;
    DialectMode mode = DialectMode::automatic;
    // How long a client may speak first before it is challenged; unknown source, default of the
    // `challenge-grace-ms` key.
    base::Nanoseconds challenge_grace = 100 * base::millisecond_ns;
    // The same where the fork's dialect was seen: covers two retransmissions of a lost first
    // packet, and an upstream client behind the same address still gets its Challenge within 3 s.
    base::Nanoseconds challenge_grace_fork = base::second_ns;
    base::Nanoseconds first_byte_timeout = 3 * base::second_ns;  // from accept
    base::Nanoseconds handshake_timeout = 10 * base::second_ns;  // from accept, all of it
    Uuid (*draw_challenge)() = random_uuid_v4;
};

enum class CloseHow : std::uint8_t {
    silently,     // nothing to send: close
    after_error,  // Error is in step.send: write, shut down writing, drain (64 KiB or 500 ms),
                  // close
    at_once,      // write step.send if the socket takes it without waiting, close without a drain:
                  // whoever breaks the framing must see the connection die, not be read on
    reset,  // abort (SO_LINGER 0), and the visitor of step.visitor_id with it: a Challenge went
            // into a data connection of the fork's dialect, count challenge_misfire_total
};

// For counters and logs.
enum class CloseReason : std::uint8_t {
    none,
    end_of_stream,
    timeout,
    frame_too_long,
    unparsable,
    unexpected_message,
    authentication,
    misfire,
};

struct Step {
    enum class Next : std::uint8_t { wait, verify, open_tunnel, claim_visitor, close };

    Next next = Next::wait;
    // Bytes to write first; a view into the handshake, good until its next event.
    std::string_view send;

    // open_tunnel: the port asked for, 0 = any. The relay answers with encode_hello(port it got) or
    // encode_error(one of the port texts).
    std::uint16_t port = 0;
    // claim_visitor, and close with CloseHow::reset.
    Uuid visitor_id;
    // open_tunnel: a visitor of this tunnel may be claimed by an authenticated Accept only (§8.4).
    bool visitors_need_authentication = false;
    // claim_visitor: this connection has shown that it knows the secret.
    bool authenticated = false;
    // For the hint table; nothing when the connection showed nothing, or there is no secret.
    std::optional<Dialect> learned;

    CloseHow how = CloseHow::silently;
    CloseReason reason = CloseReason::none;
};

class ServerHandshake {
  public:
    explicit ServerHandshake(const HandshakeOptions& options) : options_(options) {}
    ServerHandshake(const ServerHandshake&) = delete;  // its steps point into it
    ServerHandshake& operator=(const ServerHandshake&) = delete;

    [[nodiscard]] Step start(base::Nanoseconds now, DialectHint hint);

    // Call it for every read with data, before its frames: a peer that has begun to speak is not
    // challenged out of turn and has left the first-byte timeout behind.
    void on_bytes();
    [[nodiscard]] Step on_frame(std::string_view json);
    [[nodiscard]] Step on_frame_too_long();
    [[nodiscard]] Step on_end_of_stream();
    // Early calls are harmless and give `wait`.
    [[nodiscard]] Step on_timer(base::Nanoseconds now);
    // A verdict that comes after the handshake has ended is harmless, too.
    [[nodiscard]] Step on_verdict(const Verdict& verdict);

    // Always set while the handshake lives.
    [[nodiscard]] base::Nanoseconds deadline() const;
    [[nodiscard]] bool wants_frame() const {
        return state_ != State::judged && state_ != State::finished;
    }
    [[nodiscard]] bool finished() const { return state_ == State::finished; }
    // What is to be judged after Step::verify.
    [[nodiscard]] const Credential& credential() const { return credential_; }

  private:
    enum class State : std::uint8_t {
        first_message,   // nothing sent yet
        challenged,      // Challenge sent unasked; upstream's turn: Authenticate
        hello_tag,       // Hello taken, Challenge sent; the fork's turn: Authenticate
        judged,          // a verdict is outstanding
        tag_verified,    // upstream: Hello or Accept
        token_admitted,  // fork: Hello
        finished,
    };

    [[nodiscard]] Step on_message(const ClientMessage& message);
    [[nodiscard]] Step on_first_message(const ClientMessage& message);
    [[nodiscard]] Step on_challenged(const ClientMessage& message);
    [[nodiscard]] Step on_tag_verified(const ClientMessage& message);
    [[nodiscard]] Step on_token_admitted(const ClientMessage& message);

    [[nodiscard]] Step challenge(State next);
    [[nodiscard]] Step verify(Credential::Kind kind, std::string text, State after);
    [[nodiscard]] Step open_tunnel(std::uint16_t port);
    [[nodiscard]] Step claim_visitor(const Uuid& visitor_id, bool authenticated, Dialect dialect);
    [[nodiscard]] Step misfire(const Uuid& visitor_id);
    // A receive-side failure: whether it is told to the peer depends on the state.
    [[nodiscard]] Step receive_failure(std::string_view text, CloseReason reason, CloseHow how);
    [[nodiscard]] Step close_with_error(std::string_view text, CloseReason reason,
                                        CloseHow how = CloseHow::after_error);
    [[nodiscard]] Step close_silently(CloseReason reason);

    [[nodiscard]] bool challenge_is_out() const {
        return state_ == State::challenged || state_ == State::hello_tag;
    }

    HandshakeOptions options_;
    State state_ = State::first_message;
    State after_verdict_ = State::finished;
    bool byte_seen_ = false;
    std::uint16_t port_ = 0;          // of a Hello that waits for its verdict
    std::optional<Dialect> dialect_;  // what the peer has shown
    base::Nanoseconds started_ = 0;
    std::optional<base::Nanoseconds> challenge_due_;
    Uuid challenge_;
    Credential credential_;
    EncodedFrame out_;
};

}  // namespace bore::protocol
