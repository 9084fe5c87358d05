// The relay's side of a handshake, event by event: who gets which Error, who is closed silently, at
// which moment a Challenge goes out, and what the relay is told at the end. Wire-protocol §5.1,
// §5.3, §7 and §8; texts are literals here.
#include "controlplane/bore/server_handshake.hpp"

#include <gtest/gtest.h>

#include <string>

namespace bore::protocol {
namespace {

using base::millisecond_ns;
using base::second_ns;
using Next = Step::Next;
using namespace std::string_literals;

constexpr Uuid challenge{{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x46, 0x77, 0x88, 0x99, 0xaa, 0xbb,
                          0xcc, 0xdd, 0xee, 0xff}};
constexpr const char* challenge_frame = "{\"Challenge\":\"00112233-4455-4677-8899-aabbccddeeff\"}";
const std::string good_tag =  // of the secret "secret"
    "{\"Authenticate\":\"86775652a873aac56a15117438352e671b8cc35a174b6189afc23f66f2c5acd6\"}";
const std::string bad_tag =
    "{\"Authenticate\":\"86775652a873aac56a15117438352e671b8cc35a174b6189afc23f66f2c5acd7\"}";
const std::string token = "{\"Authenticate\":\"tk_0123\"}";
const std::string hello = "{\"Hello\":8080}";
const std::string accept = "{\"Accept\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"}";
constexpr Uuid visitor{{0xf4, 0x7a, 0xc1, 0x0b, 0x58, 0xcc, 0x43, 0x72, 0xa5, 0x67, 0x0e, 0x02,
                        0xb2, 0xc3, 0xd4, 0x79}};
constexpr base::Nanoseconds start_time = 1'000 * second_ns;

// A handshake with the judge beside it, as the relay has it.
class Server {
  public:
    Server(DialectMode mode, bool with_secret, DialectHint hint = DialectHint::unknown)
        : authentication_(with_secret ? Authentication::with_secret("secret")
                                      : Authentication::open()),
          handshake_(options(mode, with_secret)) {
        first_ = handshake_.start(start_time, hint);
    }

    [[nodiscard]] const Step& first() const { return first_; }
    Step frame(const std::string& json) { return settle(handshake_.on_frame(json)); }
    Step too_long() { return handshake_.on_frame_too_long(); }
    Step end() { return handshake_.on_end_of_stream(); }
    Step at(base::Nanoseconds since_start) { return handshake_.on_timer(start_time + since_start); }
    [[nodiscard]] base::Nanoseconds deadline() const { return handshake_.deadline() - start_time; }
    ServerHandshake& machine() { return handshake_; }

  private:
    static HandshakeOptions options(DialectMode mode, bool with_secret) {
        HandshakeOptions options;
        options.mode = mode;
        options.has_secret = with_secret;
        options.draw_challenge = [] { return challenge; };
        return options;
    }
    Step settle(Step step) {
        return step.next == Next::verify
                   ? handshake_.on_verdict(authentication_.judge(handshake_.credential()))
                   : step;
    }

    Authentication authentication_;
    ServerHandshake handshake_;
    Step first_;
};

void expect_wait(const Step& step, const std::string& sent = "") {
    EXPECT_EQ(step.next, Next::wait);
    EXPECT_EQ(step.send, sent.empty() ? sent : sent + '\0');
}

void expect_silent(const Step& step, CloseReason reason) {
    EXPECT_EQ(step.next, Next::close);
    EXPECT_EQ(step.how, CloseHow::silently);
    EXPECT_EQ(step.send, "");
    EXPECT_EQ(step.reason, reason);
}

void expect_error(const Step& step, const std::string& text, CloseReason reason,
                  CloseHow how = CloseHow::after_error) {
    EXPECT_EQ(step.next, Next::close);
    EXPECT_EQ(step.how, how);
    EXPECT_EQ(step.send, "{\"Error\":\"" + text + "\"}" + '\0');
    EXPECT_EQ(step.reason, reason);
}

void expect_tunnel(const Step& step, bool visitors_need_authentication,
                   std::optional<Dialect> learned) {
    EXPECT_EQ(step.next, Next::open_tunnel);
    EXPECT_EQ(step.send, "");
    EXPECT_EQ(step.port, 8080);
    EXPECT_EQ(step.visitors_need_authentication, visitors_need_authentication);
    EXPECT_EQ(step.learned, learned);
}

void expect_claim(const Step& step, bool authenticated, std::optional<Dialect> learned) {
    EXPECT_EQ(step.next, Next::claim_visitor);
    EXPECT_EQ(step.send, "");
    EXPECT_EQ(step.visitor_id, visitor);
    EXPECT_EQ(step.authenticated, authenticated);
    EXPECT_EQ(step.learned, learned);
}

constexpr DialectMode all_modes[] = {DialectMode::automatic, DialectMode::upstream,
                                     DialectMode::fork};
constexpr DialectMode fork_like[] = {DialectMode::automatic, DialectMode::fork};

// --- Open relay -----------------------------------------------------------------------------

TEST(OpenRelay, never_challenges) {
    for (const DialectMode mode : all_modes) {
        for (const DialectHint hint :
             {DialectHint::unknown, DialectHint::only_upstream, DialectHint::any_fork}) {
            Server server{mode, false, hint};
            expect_wait(server.first());
            expect_wait(server.at(2'999 * millisecond_ns));
            EXPECT_EQ(server.deadline(), 3 * second_ns);
        }
    }
}

TEST(OpenRelay, takes_hello_and_accept_from_either_dialect) {
    for (const DialectMode mode : all_modes) {
        Server control{mode, false};
        expect_tunnel(control.frame(hello), false, std::nullopt);
        EXPECT_TRUE(control.machine().finished());
        Server data{mode, false};
        expect_claim(data.frame(accept), false, std::nullopt);
    }
}

TEST(OpenRelay, takes_any_token_but_not_in_the_upstream_dialect) {
    for (const DialectMode mode : fork_like) {
        Server server{mode, false};
        expect_wait(server.frame(token));
        expect_tunnel(server.frame(hello), false, std::nullopt);
    }
    Server upstream{DialectMode::upstream, false};
    expect_silent(upstream.frame(token), CloseReason::unexpected_message);
}

TEST(OpenRelay, tells_a_fork_client_that_ends_without_a_message) {
    for (const DialectMode mode : fork_like) {
        Server ended{mode, false};
        expect_error(ended.end(), "Expected authentication or hello", CloseReason::end_of_stream);
        Server null{mode, false};
        expect_error(null.frame("null"), "Expected authentication or hello",
                     CloseReason::end_of_stream);
    }
    Server upstream{DialectMode::upstream, false};
    expect_silent(upstream.end(), CloseReason::end_of_stream);
    Server null{DialectMode::upstream, false};
    expect_silent(null.frame("null"), CloseReason::end_of_stream);
}

TEST(OpenRelay, closes_silently_on_timeout_and_bad_frames) {
    for (const DialectMode mode : all_modes) {
        Server late{mode, false};
        expect_silent(late.at(3 * second_ns), CloseReason::timeout);
        Server bad{mode, false};
        expect_silent(bad.frame("{\"Hello\":65536}"), CloseReason::unparsable);
        Server empty{mode, false};
        expect_silent(empty.frame(""), CloseReason::unparsable);
    }
}

TEST(OpenRelay, closes_at_once_on_a_frame_that_is_too_long) {
    for (const DialectMode mode : all_modes) {
        Server server{mode, false};
        const Step step = server.too_long();
        EXPECT_EQ(step.next, Next::close);
        EXPECT_EQ(step.how, CloseHow::at_once);
        EXPECT_EQ(step.reason, CloseReason::frame_too_long);
        EXPECT_EQ(step.send, "");
    }
}

TEST(OpenRelay, wants_hello_behind_a_token_and_nothing_else) {
    for (const std::string& other : {token, accept, "null"s}) {
        Server server{DialectMode::automatic, false};
        expect_wait(server.frame(token));
        expect_error(
            server.frame(other), "Protocol error",
            other == "null" ? CloseReason::end_of_stream : CloseReason::unexpected_message);
    }
    Server ended{DialectMode::automatic, false};
    expect_wait(ended.frame(token));
    expect_error(ended.end(), "Protocol error", CloseReason::end_of_stream);
    Server late{DialectMode::automatic, false};
    expect_wait(late.frame(token));
    EXPECT_EQ(late.deadline(), 10 * second_ns);
    expect_silent(late.at(10 * second_ns), CloseReason::timeout);
    Server bad{DialectMode::automatic, false};
    expect_wait(bad.frame(token));
    expect_silent(bad.frame("{"), CloseReason::unparsable);
}

// --- Secret, upstream's dialect: the server speaks first ------------------------------------

TEST(UpstreamSecret, challenges_at_once) {
    Server forced{DialectMode::upstream, true, DialectHint::any_fork};
    expect_wait(forced.first(), challenge_frame);
    Server hinted{DialectMode::automatic, true, DialectHint::only_upstream};
    expect_wait(hinted.first(), challenge_frame);
}

// The forced mode, and auto after its grace period: the same conversation follows.
template <typename Check>
void each_challenged(const Check& check) {
    Server forced{DialectMode::upstream, true};
    check(forced);
    Server automatic{DialectMode::automatic, true};
    expect_wait(automatic.at(100 * millisecond_ns), challenge_frame);
    check(automatic);
}

TEST(UpstreamSecret, opens_a_tunnel_whose_visitors_need_authentication) {
    each_challenged([](Server& server) {
        expect_wait(server.frame(good_tag));
        expect_tunnel(server.frame(hello), true, Dialect::upstream);
    });
}

TEST(UpstreamSecret, claims_a_visitor_as_authenticated) {
    each_challenged([](Server& server) {
        expect_wait(server.frame(good_tag));
        expect_claim(server.frame(accept), true, Dialect::upstream);
    });
}

TEST(UpstreamSecret, tells_a_wrong_secret) {
    each_challenged([](Server& server) {
        expect_error(server.frame(bad_tag), "invalid secret", CloseReason::authentication);
    });
    each_challenged([](Server& server) {
        expect_error(server.frame(token), "invalid secret", CloseReason::authentication);
    });
    each_challenged([](Server& server) {
        expect_error(server.frame("{\"Authenticate\":\"\"}"), "invalid secret",
                     CloseReason::authentication);
    });
}

TEST(UpstreamSecret, tells_who_gives_no_secret) {
    const std::string text = "server requires secret, but no secret was provided";
    each_challenged(
        [&](Server& server) { expect_error(server.end(), text, CloseReason::end_of_stream); });
    each_challenged([&](Server& server) {
        expect_error(server.frame("null"), text, CloseReason::end_of_stream);
    });
    // Forced, the server is upstream's own: any other message. Auto knows better (below).
    Server greeted{DialectMode::upstream, true};
    expect_error(greeted.frame(hello), text, CloseReason::authentication);
    Server accepted{DialectMode::upstream, true};
    expect_error(accepted.frame(accept), text, CloseReason::authentication);
}

TEST(UpstreamSecret, tells_what_it_could_not_receive) {
    each_challenged([](Server& server) {
        expect_error(server.frame("{\"Nonsense\":0}"), "unable to parse message",
                     CloseReason::unparsable);
    });
    each_challenged([](Server& server) {
        expect_error(server.frame(""), "unable to parse message", CloseReason::unparsable);
    });
    each_challenged([](Server& server) {
        EXPECT_EQ(server.deadline(), 3 * second_ns);
        expect_wait(server.at(3 * second_ns - 1));
        expect_error(server.at(3 * second_ns), "timed out waiting for initial message",
                     CloseReason::timeout);
    });
    each_challenged([](Server& server) {
        expect_error(server.too_long(), "frame error, invalid byte length",
                     CloseReason::frame_too_long, CloseHow::at_once);
    });
}

TEST(UpstreamSecret, closes_silently_after_a_good_tag) {
    const auto each_verified = [](const auto& check) {
        each_challenged([&](Server& server) {
            expect_wait(server.frame(good_tag));
            check(server);
        });
    };
    each_verified([](Server& server) {
        expect_silent(server.frame(good_tag), CloseReason::unexpected_message);
    });
    each_verified([](Server& server) { expect_silent(server.end(), CloseReason::end_of_stream); });
    each_verified(
        [](Server& server) { expect_silent(server.frame("null"), CloseReason::end_of_stream); });
    each_verified(
        [](Server& server) { expect_silent(server.frame("{"), CloseReason::unparsable); });
    each_verified([](Server& server) {
        EXPECT_EQ(server.deadline(), 10 * second_ns);
        expect_silent(server.at(10 * second_ns), CloseReason::timeout);
    });
    each_verified([](Server& server) {
        const Step step = server.too_long();
        EXPECT_EQ(step.how, CloseHow::at_once);
        EXPECT_EQ(step.send, "");
    });
}

// --- Secret, the fork's dialect: the client speaks first ------------------------------------

TEST(ForkSecret, is_challenged_by_its_hello) {
    for (const DialectMode mode : fork_like) {
        Server server{mode, true};
        expect_wait(server.first());
        expect_wait(server.frame(hello), challenge_frame);
        EXPECT_EQ(server.deadline(), 10 * second_ns) << "no second Challenge is planned";
        expect_tunnel(server.frame(good_tag), false, Dialect::fork);
    }
}

TEST(ForkSecret, claims_a_visitor_without_challenge) {
    for (const DialectMode mode : fork_like) {
        for (const DialectHint hint : {DialectHint::unknown, DialectHint::any_fork}) {
            Server server{mode, true, hint};
            expect_claim(server.frame(accept), false, Dialect::fork);
        }
    }
}

TEST(ForkSecret, forced_never_challenges_before_hello) {
    for (const DialectHint hint :
         {DialectHint::unknown, DialectHint::only_upstream, DialectHint::any_fork}) {
        Server server{DialectMode::fork, true, hint};
        expect_wait(server.first());
        EXPECT_EQ(server.deadline(), 3 * second_ns);
        expect_wait(server.at(3 * second_ns - 1));
        expect_silent(server.at(3 * second_ns), CloseReason::timeout);
    }
}

TEST(ForkSecret, tells_a_token_that_it_is_not_supported) {
    for (const DialectMode mode : fork_like) {
        Server server{mode, true};
        expect_error(server.frame(token),
                     "Authentication method not supported. Use shared secret mode.",
                     CloseReason::authentication);
    }
}

TEST(ForkSecret, without_a_first_message_follows_the_forks_table) {
    for (const DialectMode mode : fork_like) {
        Server ended{mode, true};
        expect_error(ended.end(), "Expected authentication or hello", CloseReason::end_of_stream);
        Server null{mode, true};
        expect_error(null.frame("null"), "Expected authentication or hello",
                     CloseReason::end_of_stream);
        Server bad{mode, true};
        expect_silent(bad.frame("x"), CloseReason::unparsable);
        Server long_frame{mode, true};
        const Step step = long_frame.too_long();
        EXPECT_EQ(step.how, CloseHow::at_once);
        EXPECT_EQ(step.send, "");
    }
}

TEST(ForkSecret, fails_after_the_challenge_with_the_same_five_texts) {
    const auto each = [](const auto& check) {
        for (const DialectMode mode : fork_like) {
            Server server{mode, true};
            expect_wait(server.frame(hello), challenge_frame);
            check(server);
        }
    };
    const std::string no_secret = "server requires secret, but no secret was provided";
    each([](Server& s) {
        expect_error(s.frame(bad_tag), "invalid secret", CloseReason::authentication);
    });
    each([&](Server& s) { expect_error(s.end(), no_secret, CloseReason::end_of_stream); });
    each([&](Server& s) { expect_error(s.frame(hello), no_secret, CloseReason::authentication); });
    each([&](Server& s) { expect_error(s.frame(accept), no_secret, CloseReason::authentication); });
    each([](Server& s) {
        expect_error(s.frame("[]"), "unable to parse message", CloseReason::unparsable);
    });
    each([](Server& s) {
        expect_error(s.at(10 * second_ns), "timed out waiting for initial message",
                     CloseReason::timeout);
    });
    each([](Server& s) {
        expect_error(s.too_long(), "frame error, invalid byte length", CloseReason::frame_too_long,
                     CloseHow::at_once);
    });
}

// --- Auto: silence tells the dialects apart -------------------------------------------------

TEST(AutoSecret, waits_the_grace_period_for_a_stranger) {
    Server server{DialectMode::automatic, true};
    expect_wait(server.first());
    EXPECT_EQ(server.deadline(), 100 * millisecond_ns);
    expect_wait(server.at(100 * millisecond_ns - 1));
    expect_wait(server.at(100 * millisecond_ns), challenge_frame);
    EXPECT_EQ(server.deadline(), 3 * second_ns);
    expect_wait(server.at(200 * millisecond_ns));
}

TEST(AutoSecret, waits_a_second_where_the_fork_was_seen_and_no_longer) {
    Server server{DialectMode::automatic, true, DialectHint::any_fork};
    EXPECT_EQ(server.deadline(), second_ns);
    expect_wait(server.at(second_ns - 1));
    expect_wait(server.at(second_ns), challenge_frame);
    expect_wait(server.frame(good_tag));
    expect_tunnel(server.frame(hello), true, Dialect::upstream);
}

TEST(AutoSecret, does_not_challenge_a_client_that_has_begun_to_speak) {
    Server server{DialectMode::automatic, true};
    server.machine().on_bytes();
    EXPECT_EQ(server.deadline(), 10 * second_ns);
    expect_wait(server.at(5 * second_ns));
    expect_claim(server.frame(accept), false, Dialect::fork);
}

TEST(AutoSecret, with_no_grace_challenges_a_stranger_at_once) {
    HandshakeOptions options;
    options.has_secret = true;
    options.challenge_grace = 0;
    ServerHandshake stranger{options};
    EXPECT_TRUE(
        stranger.start(start_time, DialectHint::unknown).send.starts_with("{\"Challenge\""));
    ServerHandshake known{options};
    EXPECT_EQ(known.start(start_time, DialectHint::any_fork).send, "");
    EXPECT_EQ(known.deadline(), start_time + second_ns);
}

TEST(AutoSecret, takes_a_late_hello_for_the_forks_without_a_second_challenge) {
    Server server{DialectMode::automatic, true};
    expect_wait(server.at(100 * millisecond_ns), challenge_frame);
    expect_wait(server.frame(hello));
    expect_tunnel(server.frame(good_tag), false, Dialect::fork);
}

TEST(AutoSecret, resets_a_late_accept_and_remembers_the_fork) {
    Server server{DialectMode::automatic, true};
    expect_wait(server.at(100 * millisecond_ns), challenge_frame);
    const Step step = server.frame(accept);
    EXPECT_EQ(step.next, Next::close);
    EXPECT_EQ(step.how, CloseHow::reset);
    EXPECT_EQ(step.reason, CloseReason::misfire);
    EXPECT_EQ(step.visitor_id, visitor);
    EXPECT_EQ(step.learned, Dialect::fork);
    EXPECT_EQ(step.send, "");
}

TEST(AutoSecret, learns_nothing_from_a_client_that_fails) {
    Server server{DialectMode::automatic, true};
    expect_wait(server.frame(hello), challenge_frame);
    EXPECT_EQ(server.frame(bad_tag).learned, std::nullopt);
}

// --- A verdict that takes its time: how a backend's answer will come ------------------------

class Slow : public testing::Test {
  protected:
    Slow() {
        (void)handshake_.start(start_time, DialectHint::unknown);
        EXPECT_EQ(handshake_.on_frame(token).next, Next::verify);
    }
    ServerHandshake handshake_{HandshakeOptions{}};
};

TEST_F(Slow, verdict_is_asked_for_with_the_token) {
    EXPECT_EQ(handshake_.credential().kind, Credential::Kind::token);
    EXPECT_EQ(handshake_.credential().text, "tk_0123");
    EXPECT_FALSE(handshake_.wants_frame()) << "the pipelined Hello stays in the reader";
    EXPECT_EQ(handshake_.deadline(), start_time + 10 * second_ns);
}

TEST_F(Slow, verdict_that_admits_lets_hello_open_the_tunnel) {
    EXPECT_EQ(handshake_.on_verdict({true, {}}).next, Next::wait);
    EXPECT_TRUE(handshake_.wants_frame());
    expect_tunnel(handshake_.on_frame(hello), false, std::nullopt);
}

TEST_F(Slow, verdict_that_refuses_is_told_in_its_own_words) {
    expect_error(handshake_.on_verdict({false, "Backend error: 401 Unauthorized"}),
                 "Backend error: 401 Unauthorized", CloseReason::authentication);
}

TEST_F(Slow, verdict_that_never_comes_ends_with_the_handshake_timeout) {
    expect_wait(handshake_.on_timer(start_time + 10 * second_ns - 1));
    expect_silent(handshake_.on_timer(start_time + 10 * second_ns), CloseReason::timeout);
}

TEST_F(Slow, verdict_for_a_client_that_left_is_not_awaited) {
    expect_silent(handshake_.on_end_of_stream(), CloseReason::end_of_stream);
    EXPECT_TRUE(handshake_.finished());
    expect_wait(handshake_.on_verdict({true, {}}));
}

TEST(Verdict, on_a_hello_may_refuse_it_too) {
    ServerHandshake handshake{HandshakeOptions{}};
    (void)handshake.start(start_time, DialectHint::unknown);
    EXPECT_EQ(handshake.on_frame(hello).next, Next::verify);
    EXPECT_EQ(handshake.credential().kind, Credential::Kind::none);
    expect_error(
        handshake.on_verdict({false, "Authentication required. Please provide a valid API key."}),
        "Authentication required. Please provide a valid API key.", CloseReason::authentication);
}

TEST(Handshake, timeouts_are_configurable) {
    HandshakeOptions options;
    options.first_byte_timeout = 50 * millisecond_ns;
    options.handshake_timeout = 70 * millisecond_ns;
    ServerHandshake silent{options};
    (void)silent.start(start_time, DialectHint::unknown);
    EXPECT_EQ(silent.deadline(), start_time + 50 * millisecond_ns);
    ServerHandshake slow{options};
    (void)slow.start(start_time, DialectHint::unknown);
    slow.on_bytes();
    EXPECT_EQ(slow.deadline(), start_time + 70 * millisecond_ns);
    expect_silent(slow.on_timer(start_time + 70 * millisecond_ns), CloseReason::timeout);
}

TEST(Handshake, takes_no_frame_once_it_is_over) {
    Server server{DialectMode::automatic, false};
    expect_tunnel(server.frame(hello), false, std::nullopt);
    EXPECT_FALSE(server.machine().wants_frame());
    expect_wait(server.end());
    expect_wait(server.at(20 * second_ns));
    EXPECT_DEATH((void)server.machine().on_frame(hello), "does not want one");
}

TEST(Handshake, takes_no_verdict_that_it_did_not_ask_for) {
    Server server{DialectMode::automatic, false};
    EXPECT_DEATH((void)server.machine().on_verdict({true, {}}), "no handshake waits for");
}

}  // namespace
}  // namespace bore::protocol
