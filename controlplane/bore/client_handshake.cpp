// See client_handshake.hpp. Failures say what the Rust clients say where those say something.
#include "controlplane/bore/client_handshake.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "controlplane/bore/error_texts.hpp"
#include "dataplane/base/check.hpp"

namespace bore::protocol {
namespace {

bool is_token(std::string_view secret) {
    return secret.starts_with("sk_") || secret.starts_with("tk_");
}

ClientStep::Failure classify(std::string_view error) {
    using namespace error_text;
    constexpr std::array authentication{invalid_secret, secret_required, method_not_supported,
                                        authentication_required, invalid_api_key};
    constexpr std::array port{port_not_allowed, port_in_use, permission_denied, bind_failed};
    if (std::ranges::find(authentication, error) != authentication.end()) {
        return ClientStep::Failure::authentication;
    }
    if (std::ranges::find(port, error) != port.end()) {
        return ClientStep::Failure::port;
    }
    return ClientStep::Failure::refused;
}

constexpr std::string_view no_challenge =
    "expected authentication challenge, but no secret was required";

}  // namespace

ClientHandshake::ClientHandshake(const ClientOptions& options, const ClientMessage& request,
                                 DialectMode mode)
    : options_(&options), request_(request), mode_(mode), credential_(CredentialKind::none) {
    if (options.secret) {
        const bool token = options.mode != DialectMode::upstream && is_token(*options.secret);
        credential_ = token ? CredentialKind::token : CredentialKind::secret;
    }
}

ClientHandshake ClientHandshake::control(const ClientOptions& options, std::uint16_t port) {
    return {options, Hello{port}, options.mode};
}

ClientHandshake ClientHandshake::data(const ClientOptions& options, Dialect dialect,
                                      const Uuid& visitor_id) {
    return {options, Accept{visitor_id},
            dialect == Dialect::upstream ? DialectMode::upstream : DialectMode::fork};
}

ClientStep ClientHandshake::start(base::Nanoseconds now) {
    started_ = now;
    if (credential_ == CredentialKind::secret && mode_ != DialectMode::fork) {
        state_ = State::wait_challenge;
        return {};
    }
    if (credential_ == CredentialKind::token && !is_data()) {
        const auto frame = encode_authenticate(*options_->secret);
        if (!frame) {
            return fail(ClientStep::Failure::authentication,
                        "the token is " + std::to_string(options_->secret->size()) +
                            " bytes long; a relay takes at most " +
                            std::to_string(max_credential_bytes) + " bytes");
        }
        out_ = frame->view();
    }
    return send_request();
}

ClientStep ClientHandshake::send_request() {
    if (const auto* accept = std::get_if<Accept>(&request_)) {
        out_ += encode_accept(accept->visitor_id).view();
        return step(ClientStep::Next::ready);  // there is no acknowledgement of an Accept
    }
    out_ += encode_hello(std::get<Hello>(request_).port).view();
    state_ = State::wait_reply;
    return step(ClientStep::Next::wait);
}

base::Nanoseconds ClientHandshake::deadline() const {
    const bool may_speak = state_ == State::wait_challenge && mode_ == DialectMode::automatic;
    const auto reply_deadline = started_ + options_->reply_timeout;
    return may_speak ? std::min(reply_deadline, started_ + options_->challenge_wait)
                     : reply_deadline;
}

ClientStep ClientHandshake::on_timer(base::Nanoseconds now) {
    if (state_ == State::finished || now < deadline()) {
        return {};
    }
    if (now >= started_ + options_->reply_timeout) {
        return fail(ClientStep::Failure::lost, std::string{error_text::timed_out});
    }
    out_.clear();
    return send_request();  // no Challenge came: the fork's opening
}

ClientStep ClientHandshake::on_frame_too_long() {
    return fail(ClientStep::Failure::protocol, std::string{error_text::frame_too_long});
}

ClientStep ClientHandshake::on_end_of_stream() {
    if (state_ == State::finished) {
        return {};
    }
    return fail(ClientStep::Failure::lost, "unexpected EOF");
}

ClientStep ClientHandshake::on_frame(std::string_view json) {
    BORE_CHECK(wants_frame(), "a frame was given to a handshake that is over");
    const auto message = parse_server_message(json);
    if (!message) {
        return fail(ClientStep::Failure::protocol, std::string{error_text::unparsable});
    }
    if (std::holds_alternative<EndOfStream>(*message)) {
        return on_end_of_stream();
    }
    if (const auto* challenge = std::get_if<Challenge>(&*message)) {
        return on_challenge(*challenge);
    }
    if (const auto* hello = std::get_if<Hello>(&*message)) {
        return on_hello(*hello);
    }
    if (const auto* error = std::get_if<Error>(&*message)) {
        return on_error(*error);
    }
    return fail(ClientStep::Failure::protocol, "unexpected initial non-hello message");
}

ClientStep ClientHandshake::on_challenge(const Challenge& challenge) {
    if (credential_ == CredentialKind::none) {
        return fail(ClientStep::Failure::authentication,
                    "server requires authentication, but no client secret was provided");
    }
    if (credential_ == CredentialKind::token) {
        return fail(ClientStep::Failure::authentication,
                    "server asks for a shared secret, but a token was given (it begins with sk_ or "
                    "tk_); if it is the shared secret, choose the dialect upstream");
    }
    if (challenge_answered_) {
        return fail(ClientStep::Failure::protocol, "server sent a second challenge");
    }
    challenge_answered_ = true;
    const SecretKey key{*options_->secret};
    out_ = encode_authenticate(key.tag_for(challenge.challenge)).value().view();
    if (state_ == State::wait_challenge) {
        dialect_ = Dialect::upstream;
        return send_request();
    }
    return step(ClientStep::Next::wait);
}

ClientStep ClientHandshake::on_hello(const Hello& hello) {
    if (state_ == State::wait_challenge ||
        (credential_ == CredentialKind::secret && !challenge_answered_)) {
        return fail(ClientStep::Failure::authentication, std::string{no_challenge});
    }
    out_.clear();
    ClientStep result = step(ClientStep::Next::ready);
    result.port = hello.port;
    return result;
}

ClientStep ClientHandshake::on_error(const Error& error) {
    const bool spoke_first = state_ == State::wait_reply && dialect_ == Dialect::fork;
    ClientStep result = fail(classify(error.text), "server error: " + error.text);
    // An upstream server whose Challenge took longer than challenge_wait met our Hello.
    if (spoke_first && mode_ == DialectMode::automatic && credential_ == CredentialKind::secret &&
        error.text == error_text::secret_required) {
        result.retry_mode = DialectMode::upstream;
    }
    return result;
}

ClientStep ClientHandshake::fail(ClientStep::Failure failure, std::string text) {
    state_ = State::finished;
    ClientStep result;
    result.next = ClientStep::Next::failed;
    result.failure = failure;
    result.text = std::move(text);
    return result;
}

ClientStep ClientHandshake::step(ClientStep::Next next) {
    if (next == ClientStep::Next::ready) {
        state_ = State::finished;
    }
    ClientStep result;
    result.next = next;
    result.send = out_;
    result.dialect = dialect_;
    return result;
}

}  // namespace bore::protocol
