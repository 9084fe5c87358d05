// The tunnel client's side of a handshake, event by event: what it sends when, and in which words
// and class it fails.
#include "controlplane/bore/client_handshake.hpp"

#include <gtest/gtest.h>

#include <string>

namespace bore::protocol {
namespace {

using base::millisecond_ns;
using base::second_ns;
using Failure = ClientStep::Failure;
using Next = ClientStep::Next;
using namespace std::string_literals;

constexpr base::Nanoseconds start_time = 1'000 * second_ns;
const std::string challenge = "{\"Challenge\":\"00112233-4455-4677-8899-aabbccddeeff\"}";
const std::string tag =  // of "secret"
    "{\"Authenticate\":\"86775652a873aac56a15117438352e671b8cc35a174b6189afc23f66f2c5acd6\"}\0"s;
const std::string hello = "{\"Hello\":8080}\0"s;
const std::string accept = "{\"Accept\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"}\0"s;
constexpr Uuid visitor{{0xf4, 0x7a, 0xc1, 0x0b, 0x58, 0xcc, 0x43, 0x72, 0xa5, 0x67, 0x0e, 0x02,
                        0xb2, 0xc3, 0xd4, 0x79}};

ClientOptions with(std::optional<std::string> secret, DialectMode mode = DialectMode::automatic) {
    ClientOptions options;
    options.secret = std::move(secret);
    options.mode = mode;
    return options;
}

void expect_wait(const ClientStep& step, const std::string& sent = "") {
    EXPECT_EQ(step.next, Next::wait);
    EXPECT_EQ(step.send, sent);
}

void expect_ready(const ClientStep& step, std::uint16_t port, Dialect dialect) {
    EXPECT_EQ(step.next, Next::ready);
    EXPECT_EQ(step.send, "");
    EXPECT_EQ(step.port, port);
    EXPECT_EQ(step.dialect, dialect);
}

void expect_failed(const ClientStep& step, Failure failure, const std::string& text) {
    EXPECT_EQ(step.next, Next::failed);
    EXPECT_EQ(step.failure, failure);
    EXPECT_EQ(step.text, text);
    EXPECT_EQ(step.send, "");
}

TEST(ClientWithoutSecret, says_hello_at_once_in_every_mode) {
    for (const DialectMode mode :
         {DialectMode::automatic, DialectMode::upstream, DialectMode::fork}) {
        const ClientOptions options = with(std::nullopt, mode);
        auto handshake = ClientHandshake::control(options, 8080);
        expect_wait(handshake.start(start_time), hello);
        EXPECT_EQ(handshake.deadline(), start_time + 10 * second_ns);
        expect_ready(handshake.on_frame("{\"Hello\":34185}"), 34185, Dialect::fork);
        EXPECT_FALSE(handshake.wants_frame());
    }
}

TEST(ClientWithoutSecret, fails_in_the_words_of_the_rust_client) {
    const ClientOptions options = with(std::nullopt);
    const auto fails = [&](auto event, Failure failure, const std::string& text) {
        auto handshake = ClientHandshake::control(options, 8080);
        (void)handshake.start(start_time);
        expect_failed(event(handshake), failure, text);
        EXPECT_FALSE(handshake.wants_frame());
    };
    fails([](auto& h) { return h.on_frame(challenge); }, Failure::authentication,
          "server requires authentication, but no client secret was provided");
    fails([](auto& h) { return h.on_frame("{\"Error\":\"port already in use\"}"); }, Failure::port,
          "server error: port already in use");
    fails([](auto& h) { return h.on_frame("{\"Error\":\"failed to find an available port\"}"); },
          Failure::refused, "server error: failed to find an available port");
    fails([](auto& h) { return h.on_frame("\"Heartbeat\""); }, Failure::protocol,
          "unexpected initial non-hello message");
    fails([](auto& h) { return h.on_frame("nonsense"); }, Failure::protocol,
          "unable to parse message");
    fails([](auto& h) { return h.on_frame_too_long(); }, Failure::protocol,
          "frame error, invalid byte length");
    fails([](auto& h) { return h.on_end_of_stream(); }, Failure::lost, "unexpected EOF");
    fails([](auto& h) { return h.on_frame("null"); }, Failure::lost, "unexpected EOF");
    fails([](auto& h) { return h.on_timer(start_time + 10 * second_ns); }, Failure::lost,
          "timed out waiting for initial message");
}

TEST(ClientFailures, are_classed_by_what_helps) {
    const ClientOptions options = with(std::nullopt);
    const auto failure_of = [&](const std::string& text) {
        auto handshake = ClientHandshake::control(options, 8080);
        (void)handshake.start(start_time);
        return handshake.on_frame("{\"Error\":\"" + text + "\"}").failure;
    };
    for (const char* text :
         {"invalid secret", "Invalid API key", "server requires secret, but no secret was provided",
          "Authentication required. Please provide a valid API key.",
          "Authentication method not supported. Use shared secret mode."}) {
        EXPECT_EQ(failure_of(text), Failure::authentication) << text;
    }
    for (const char* text : {"client port number not in allowed range", "port already in use",
                             "permission denied", "failed to bind to port"}) {
        EXPECT_EQ(failure_of(text), Failure::port) << text;
    }
    EXPECT_EQ(failure_of("Authentication service unavailable"), Failure::refused);
}

TEST(ClientWithSecret, answers_an_upstream_server_in_one_write) {
    for (const DialectMode mode : {DialectMode::automatic, DialectMode::upstream}) {
        const ClientOptions options = with("secret", mode);
        auto handshake = ClientHandshake::control(options, 8080);
        expect_wait(handshake.start(start_time));
        expect_wait(handshake.on_frame(challenge), tag + hello);
        EXPECT_EQ(handshake.deadline(), start_time + 10 * second_ns);
        expect_ready(handshake.on_frame("{\"Hello\":34185}"), 34185, Dialect::upstream);
    }
}

TEST(ClientWithSecret, says_hello_after_400_ms_of_silence) {
    const ClientOptions options = with("secret");
    auto handshake = ClientHandshake::control(options, 8080);
    expect_wait(handshake.start(start_time));
    EXPECT_EQ(handshake.deadline(), start_time + 400 * millisecond_ns);
    expect_wait(handshake.on_timer(start_time + 400 * millisecond_ns - 1));
    expect_wait(handshake.on_timer(start_time + 400 * millisecond_ns), hello);
    expect_wait(handshake.on_timer(start_time + 401 * millisecond_ns));
    expect_wait(handshake.on_frame(challenge), tag);
    expect_ready(handshake.on_frame("{\"Hello\":34185}"), 34185, Dialect::fork);
}

TEST(ClientWithSecret, opens_the_forks_dialect_when_told_to) {
    const ClientOptions options = with("secret", DialectMode::fork);
    auto handshake = ClientHandshake::control(options, 8080);
    expect_wait(handshake.start(start_time), hello);
    expect_wait(handshake.on_frame(challenge), tag);
    expect_ready(handshake.on_frame("{\"Hello\":34185}"), 34185, Dialect::fork);
}

TEST(ClientWithSecret, waits_for_the_challenge_to_the_end_when_told_to) {
    const ClientOptions options = with("secret", DialectMode::upstream);
    auto handshake = ClientHandshake::control(options, 8080);
    expect_wait(handshake.start(start_time));
    EXPECT_EQ(handshake.deadline(), start_time + 10 * second_ns);
    expect_failed(handshake.on_timer(start_time + 10 * second_ns), Failure::lost,
                  "timed out waiting for initial message");
}

TEST(ClientWithSecret, refuses_a_relay_that_does_not_ask_for_it) {
    const std::string text = "expected authentication challenge, but no secret was required";
    const ClientOptions upstream = with("secret", DialectMode::upstream);
    auto waiting = ClientHandshake::control(upstream, 8080);
    expect_wait(waiting.start(start_time));
    expect_failed(waiting.on_frame("{\"Hello\":34185}"), Failure::authentication, text);

    const ClientOptions fork = with("secret", DialectMode::fork);
    auto greeted = ClientHandshake::control(fork, 8080);
    expect_wait(greeted.start(start_time), hello);
    expect_failed(greeted.on_frame("{\"Hello\":34185}"), Failure::authentication, text);
}

TEST(ClientWithSecret, refuses_a_second_challenge) {
    const ClientOptions options = with("secret");
    auto handshake = ClientHandshake::control(options, 8080);
    expect_wait(handshake.start(start_time));
    expect_wait(handshake.on_frame(challenge), tag + hello);
    expect_failed(handshake.on_frame(challenge), Failure::protocol,
                  "server sent a second challenge");
}

TEST(ClientWithSecret, is_told_to_retry_when_the_challenge_was_late) {
    const ClientOptions options = with("secret");
    auto handshake = ClientHandshake::control(options, 8080);
    expect_wait(handshake.start(start_time));
    expect_wait(handshake.on_timer(start_time + 400 * millisecond_ns), hello);
    expect_wait(handshake.on_frame(challenge), tag);
    const ClientStep step =
        handshake.on_frame("{\"Error\":\"server requires secret, but no secret was provided\"}");
    expect_failed(step, Failure::authentication,
                  "server error: server requires secret, but no secret was provided");
    EXPECT_EQ(step.retry_mode, DialectMode::upstream);
}

TEST(ClientWithSecret, is_not_told_to_retry_a_wrong_one) {
    const ClientOptions options = with("secret");
    auto handshake = ClientHandshake::control(options, 8080);
    expect_wait(handshake.start(start_time));
    expect_wait(handshake.on_frame(challenge), tag + hello);
    const ClientStep step = handshake.on_frame("{\"Error\":\"invalid secret\"}");
    expect_failed(step, Failure::authentication, "server error: invalid secret");
    EXPECT_EQ(step.retry_mode, std::nullopt);
}

TEST(ClientWithSecret, counts_the_empty_one) {
    const ClientOptions options = with("");
    auto handshake = ClientHandshake::control(options, 8080);
    expect_wait(handshake.start(start_time));
    expect_wait(
        handshake.on_frame(challenge),
        "{\"Authenticate\":\"0bcc845b2f82ba52534f7b50acfd8d3d78f847a2f0b4ca0bd97189013c353d39\"}\0"s +
            hello);
}

TEST(ClientWithToken, sends_it_in_front_of_hello) {
    for (const DialectMode mode : {DialectMode::automatic, DialectMode::fork}) {
        const ClientOptions options = with("tk_0123", mode);
        auto handshake = ClientHandshake::control(options, 8080);
        expect_wait(handshake.start(start_time), "{\"Authenticate\":\"tk_0123\"}\0"s + hello);
        expect_ready(handshake.on_frame("{\"Hello\":34185}"), 34185, Dialect::fork);
    }
    const ClientOptions options = with("sk_tok_9");
    auto handshake = ClientHandshake::control(options, 8080);
    expect_wait(handshake.start(start_time), "{\"Authenticate\":\"sk_tok_9\"}\0"s + hello);
}

TEST(ClientWithToken, is_a_secret_where_upstream_is_forced) {
    const ClientOptions options = with("tk_0123", DialectMode::upstream);
    auto handshake = ClientHandshake::control(options, 8080);
    expect_wait(handshake.start(start_time));
    EXPECT_EQ(handshake.on_frame(challenge).send.substr(0, 17), "{\"Authenticate\":\"");
}

TEST(ClientWithToken, explains_a_challenge) {
    const ClientOptions options = with("tk_0123");
    auto handshake = ClientHandshake::control(options, 8080);
    (void)handshake.start(start_time);
    const ClientStep step = handshake.on_frame(challenge);
    EXPECT_EQ(step.failure, Failure::authentication);
    EXPECT_NE(step.text.find("asks for a shared secret, but a token was given"), std::string::npos);
}

TEST(ClientWithToken, explains_one_that_is_too_long) {
    const ClientOptions options = with("tk_" + std::string(235, 'x'));
    auto handshake = ClientHandshake::control(options, 8080);
    expect_failed(handshake.start(start_time), Failure::authentication,
                  "the token is 238 bytes long; a relay takes at most 237 bytes");
}

TEST(ClientData, is_ready_at_once_where_nobody_challenges) {
    struct Case {
        std::optional<std::string> secret;
        Dialect dialect;
    };
    for (const Case& test :
         {Case{std::nullopt, Dialect::upstream}, Case{std::nullopt, Dialect::fork},
          Case{"secret", Dialect::fork}, Case{"tk_0123", Dialect::fork}}) {
        const ClientOptions options = with(test.secret);
        auto handshake = ClientHandshake::data(options, test.dialect, visitor);
        const ClientStep step = handshake.start(start_time);
        EXPECT_EQ(step.next, Next::ready);
        EXPECT_EQ(step.send, accept);
        EXPECT_FALSE(handshake.wants_frame());
    }
}

TEST(ClientData, answers_the_challenge_of_an_upstream_server_and_accepts_in_one_write) {
    const ClientOptions options = with("secret");
    auto handshake = ClientHandshake::data(options, Dialect::upstream, visitor);
    expect_wait(handshake.start(start_time));
    EXPECT_EQ(handshake.deadline(), start_time + 10 * second_ns) << "it never speaks first";
    const ClientStep step = handshake.on_frame(challenge);
    EXPECT_EQ(step.next, Next::ready);
    EXPECT_EQ(step.send, tag + accept);
}

}  // namespace
}  // namespace bore::protocol
