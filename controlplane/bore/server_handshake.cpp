// See server_handshake.hpp. The functions follow the order of a handshake; each on_<state> function
// is one row of the tables in wire-protocol §5.1, §5.3 and §8.
#include "controlplane/bore/server_handshake.hpp"

#include <algorithm>
#include <utility>

#include "controlplane/bore/error_texts.hpp"
#include "dataplane/base/check.hpp"

namespace bore::protocol {
namespace {

// The reason to log when a message does not fit the state: `null` is an end of stream.
CloseReason misplaced(const ClientMessage& message) {
    return std::holds_alternative<EndOfStream>(message) ? CloseReason::end_of_stream
                                                        : CloseReason::unexpected_message;
}

}  // namespace

// Whoever waits for a Challenge says nothing, whoever speaks first must not get one too early:
// only silence tells the dialects apart, so a source that is not known costs the grace period.
Step ServerHandshake::start(base::Nanoseconds now, DialectHint hint) {
    started_ = now;
    if (!options_.has_secret || options_.mode == DialectMode::fork) {
        return {};  // never a Challenge unasked
    }
    if (options_.mode == DialectMode::upstream || hint == DialectHint::only_upstream) {
        return challenge(State::challenged);
    }
    const base::Nanoseconds grace =
        hint == DialectHint::any_fork ? options_.challenge_grace_fork : options_.challenge_grace;
    if (grace == 0) {
        return challenge(State::challenged);
    }
    // Whoever waits for it must still have time to answer.
    challenge_due_ = now + std::min(grace, options_.first_byte_timeout / 2);
    return {};
}

void ServerHandshake::on_bytes() {
    byte_seen_ = true;
    challenge_due_.reset();
}

Step ServerHandshake::on_timer(base::Nanoseconds now) {
    if (state_ == State::finished) {
        return {};
    }
    if (now >= started_ + options_.handshake_timeout ||
        (!byte_seen_ && now >= started_ + options_.first_byte_timeout)) {
        return receive_failure(error_text::timed_out, CloseReason::timeout, CloseHow::after_error);
    }
    if (challenge_due_ && now >= *challenge_due_) {
        return challenge(State::challenged);
    }
    return {};
}

base::Nanoseconds ServerHandshake::deadline() const {
    base::Nanoseconds deadline = started_ + options_.handshake_timeout;
    if (!byte_seen_) {
        deadline = std::min(deadline, started_ + options_.first_byte_timeout);
    }
    return challenge_due_ ? std::min(deadline, *challenge_due_) : deadline;
}

Step ServerHandshake::on_frame(std::string_view json) {
    BORE_CHECK(wants_frame(), "a frame was given to a handshake that does not want one");
    on_bytes();
    const auto message = parse_client_message(json);
    if (!message) {
        return receive_failure(error_text::unparsable, CloseReason::unparsable,
                               CloseHow::after_error);
    }
    return on_message(*message);
}

Step ServerHandshake::on_end_of_stream() {
    if (!wants_frame()) {
        return state_ == State::finished ? Step{} : close_silently(CloseReason::end_of_stream);
    }
    return on_message(EndOfStream{});
}

Step ServerHandshake::on_frame_too_long() {
    return receive_failure(error_text::frame_too_long, CloseReason::frame_too_long,
                           CloseHow::at_once);
}

// A peer that was challenged is told; before a Challenge and after a good tag nobody is.
Step ServerHandshake::receive_failure(std::string_view text, CloseReason reason, CloseHow how) {
    if (challenge_is_out()) {
        return close_with_error(text, reason, how);
    }
    Step step = close_silently(reason);
    if (how == CloseHow::at_once) {
        step.how = how;
    }
    return step;
}

Step ServerHandshake::on_message(const ClientMessage& message) {
    switch (state_) {
        case State::first_message:
            return on_first_message(message);
        case State::challenged:
        case State::hello_tag:
            return on_challenged(message);
        case State::tag_verified:
            return on_tag_verified(message);
        case State::token_admitted:
            return on_token_admitted(message);
        case State::judged:
        case State::finished:
            break;
    }
    BORE_CHECK(false, "a message reached a handshake that is over");
    return {};
}

// Nothing was sent yet: the fork's table, which an upstream client without a secret also fits.
Step ServerHandshake::on_first_message(const ClientMessage& message) {
    if (const auto* accept = std::get_if<Accept>(&message)) {
        return claim_visitor(accept->visitor_id, false, Dialect::fork);
    }
    if (const auto* hello = std::get_if<Hello>(&message)) {
        port_ = hello->port;
        if (options_.has_secret) {
            dialect_ = Dialect::fork;
            return challenge(State::hello_tag);
        }
        return verify(Credential::Kind::none, {}, State::finished);
    }
    if (options_.mode == DialectMode::upstream) {
        return close_silently(misplaced(message));
    }
    if (const auto* authenticate = std::get_if<Authenticate>(&message)) {
        dialect_ = Dialect::fork;
        return verify(Credential::Kind::token, authenticate->credential, State::token_admitted);
    }
    return close_with_error(error_text::expected_first_message, misplaced(message));
}

// A Challenge is out. The fork's client may have been on its way when it was sent unasked: its
// Hello takes the Challenge for the reply, its Accept means that the Challenge went into a user's
// stream.
Step ServerHandshake::on_challenged(const ClientMessage& message) {
    if (const auto* authenticate = std::get_if<Authenticate>(&message)) {
        const State after = state_ == State::hello_tag ? State::finished : State::tag_verified;
        if (!dialect_) {
            dialect_ = Dialect::upstream;
        }
        return verify(Credential::Kind::tag, authenticate->credential, after);
    }
    if (state_ == State::challenged && options_.mode == DialectMode::automatic) {
        if (const auto* hello = std::get_if<Hello>(&message)) {
            port_ = hello->port;
            dialect_ = Dialect::fork;
            state_ = State::hello_tag;
            return {};
        }
        if (const auto* accept = std::get_if<Accept>(&message)) {
            return misfire(accept->visitor_id);
        }
    }
    const bool ended = std::holds_alternative<EndOfStream>(message);
    return close_with_error(error_text::secret_required,
                            ended ? CloseReason::end_of_stream : CloseReason::authentication);
}

Step ServerHandshake::on_tag_verified(const ClientMessage& message) {
    if (const auto* hello = std::get_if<Hello>(&message)) {
        return open_tunnel(hello->port);
    }
    if (const auto* accept = std::get_if<Accept>(&message)) {
        return claim_visitor(accept->visitor_id, true, Dialect::upstream);
    }
    return close_silently(misplaced(message));
}

Step ServerHandshake::on_token_admitted(const ClientMessage& message) {
    if (const auto* hello = std::get_if<Hello>(&message)) {
        return open_tunnel(hello->port);
    }
    return close_with_error(error_text::protocol_error, misplaced(message));
}

Step ServerHandshake::on_verdict(const Verdict& verdict) {
    if (state_ == State::finished) {
        return {};  // timed out or hung up while the judge thought
    }
    BORE_CHECK(state_ == State::judged, "a verdict came that no handshake waits for");
    if (!verdict.admitted) {
        return close_with_error(verdict.error, CloseReason::authentication);
    }
    if (after_verdict_ == State::finished) {
        return open_tunnel(port_);
    }
    state_ = after_verdict_;
    return {};
}

Step ServerHandshake::challenge(State next) {
    challenge_due_.reset();
    challenge_ = options_.draw_challenge();
    out_ = encode_challenge(challenge_);
    state_ = next;
    Step step;
    step.send = out_.view();
    return step;
}

Step ServerHandshake::verify(Credential::Kind kind, std::string text, State after) {
    credential_ = {kind, std::move(text), challenge_};
    after_verdict_ = after;
    state_ = State::judged;
    Step step;
    step.next = Step::Next::verify;
    return step;
}

Step ServerHandshake::open_tunnel(std::uint16_t port) {
    state_ = State::finished;
    Step step;
    step.next = Step::Next::open_tunnel;
    step.port = port;
    step.visitors_need_authentication = dialect_ == Dialect::upstream;
    step.learned = options_.has_secret ? dialect_ : std::nullopt;
    return step;
}

Step ServerHandshake::claim_visitor(const Uuid& visitor_id, bool authenticated, Dialect dialect) {
    state_ = State::finished;
    Step step;
    step.next = Step::Next::claim_visitor;
    step.visitor_id = visitor_id;
    step.authenticated = authenticated;
    if (options_.has_secret) {
        step.learned = dialect;
    }
    return step;
}

Step ServerHandshake::misfire(const Uuid& visitor_id) {
    Step step = close_silently(CloseReason::misfire);
    step.how = CloseHow::reset;
    step.visitor_id = visitor_id;
    step.learned = Dialect::fork;
    return step;
}

Step ServerHandshake::close_with_error(std::string_view text, CloseReason reason, CloseHow how) {
    Step step = close_silently(reason);
    out_ = encode_error(text);
    step.send = out_.view();
    step.how = how;
    return step;
}

Step ServerHandshake::close_silently(CloseReason reason) {
    state_ = State::finished;
    Step step;
    step.next = Step::Next::close;
    step.reason = reason;
    return step;
}

}  // namespace bore::protocol
