// Every cell of the matrix in wire-protocol §8: the originals' clients, written out as scripts,
// against the relay in each forced mode (the originals' columns) and in auto (one port for all),
// over networks of several latencies and with every hint. What the user reads is the verdict.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "controlplane/bore/client_handshake.hpp"
#include "tests/protocol/conversation.hpp"

namespace bore::protocol {
namespace {

using base::millisecond_ns;
using base::Nanoseconds;
using base::second_ns;
using testing_support::Conversation;
using testing_support::Judge;
using testing_support::Judgement;
using testing_support::Network;
using testing_support::ScriptedClient;
using namespace std::string_literals;

constexpr const char* no_client_secret =
    "server requires authentication, but no client secret was provided";
constexpr const char* not_required =
    "expected authentication challenge, but no secret was required";
constexpr const char* api_key_required =
    "server error: Authentication required. Please provide a valid API key.";
constexpr const char* not_supported =
    "server error: Authentication method not supported. Use shared secret mode.";
constexpr const char* secret_required =
    "server error: server requires secret, but no secret was provided";

// What all scripts share: frames by hand, a time limit, the reading of a final reply.
class RustClient : public ScriptedClient {
  public:
    explicit RustClient(Nanoseconds timeout) : timeout_(timeout) {}

    std::string start(Nanoseconds now) override {
        give_up_ = now + timeout_;
        return opening();
    }
    std::string on_timer(Nanoseconds now) override {
        if (now >= give_up_) {
            outcome_ = "timed out";
        }
        return {};
    }
    void on_end_of_stream() override { outcome_ = "unexpected EOF"; }
    Nanoseconds deadline() const override { return give_up_; }

  protected:
    virtual std::string opening() = 0;

    static std::string hello() { return "{\"Hello\":0}\0"s; }
    static std::string authenticate(const std::string& text) {
        return "{\"Authenticate\":\"" + text + "\"}" + '\0';
    }
    static std::string answer(const std::string& secret, const std::string& challenge_json) {
        const auto challenge = parse_uuid(challenge_json.substr(14, 36));
        return authenticate(SecretKey{secret}.tag_for(challenge.value()));
    }
    static bool is_challenge(const std::string& json) {
        return json.starts_with("{\"Challenge\":\"");
    }
    void read_reply(const std::string& json) {
        if (json == "{\"Hello\":34185}") {
            outcome_ = "ok";
        } else if (json.starts_with("{\"Error\":\"")) {
            outcome_ = "server error: " + json.substr(10, json.size() - 12);
        } else if (is_challenge(json)) {
            outcome_ = no_client_secret;
        } else {
            outcome_ = "unexpected initial non-hello message";
        }
    }

  private:
    Nanoseconds timeout_;
    Nanoseconds give_up_ = 0;
};

// Upstream 0.5.2 and 0.6.0: with a secret it says nothing before the Challenge, 3 s.
class UpstreamClient : public RustClient {
  public:
    explicit UpstreamClient(std::optional<std::string> secret)
        : RustClient(3 * second_ns), secret_(std::move(secret)) {}

    std::string on_frame(const std::string& json) override {
        if (secret_ && !answered_) {
            if (!is_challenge(json)) {
                outcome_ = not_required;
                return {};
            }
            answered_ = true;
            return answer(*secret_, json) + hello();
        }
        read_reply(json);
        return {};
    }

  private:
    std::string opening() override { return secret_ ? ""s : hello(); }

    std::optional<std::string> secret_;
    bool answered_ = false;
};

// The fork: speaks first, reads the Challenge as a reply to its Hello, 10 s.
class ForkClient : public RustClient {
  public:
    explicit ForkClient(std::optional<std::string> secret)
        : RustClient(10 * second_ns), secret_(std::move(secret)) {}

    std::string on_frame(const std::string& json) override {
        const bool asked = secret_ && !is_token() && !answered_;
        if (asked && is_challenge(json)) {
            answered_ = true;
            return answer(*secret_, json);
        }
        read_reply(json);
        if (asked && outcome_ == "ok") {
            outcome_ = not_required;
        }
        if (is_token() && outcome_ == no_client_secret) {
            outcome_ = "stopped at the challenge";
        }
        return {};
    }

  private:
    bool is_token() const { return secret_ && secret_->starts_with("tk_"); }
    std::string opening() override {
        return is_token() ? authenticate(*secret_) + hello() : hello();
    }

    std::optional<std::string> secret_;
    bool answered_ = false;
};

// Our own client's handshake in the same harness.
class OurClient : public ScriptedClient {
  public:
    explicit OurClient(std::optional<std::string> secret, DialectMode mode = DialectMode::automatic)
        : options_{std::move(secret), mode} {}

    std::string start(Nanoseconds now) override { return act(handshake_.start(now)); }
    std::string on_frame(const std::string& json) override {
        return handshake_.wants_frame() ? act(handshake_.on_frame(json)) : ""s;
    }
    std::string on_timer(Nanoseconds now) override { return act(handshake_.on_timer(now)); }
    void on_end_of_stream() override { (void)act(handshake_.on_end_of_stream()); }
    Nanoseconds deadline() const override { return handshake_.deadline(); }
    [[nodiscard]] Dialect dialect() const { return dialect_; }
    [[nodiscard]] std::optional<DialectMode> retry_mode() const { return retry_mode_; }

  private:
    std::string act(const ClientStep& step) {
        if (step.next == ClientStep::Next::ready) {
            outcome_ = step.port == Conversation::public_port ? "ok" : "wrong port";
            dialect_ = step.dialect;
        } else if (step.next == ClientStep::Next::failed) {
            outcome_ = step.text;
            retry_mode_ = step.retry_mode;
        }
        return std::string{step.send};
    }

    ClientOptions options_;
    ClientHandshake handshake_ = ClientHandshake::control(options_, 0);
    Dialect dialect_ = Dialect::fork;
    std::optional<DialectMode> retry_mode_;
};

enum class Who { upstream, upstream_secret, fork, fork_secret, fork_token };
constexpr std::array everybody{Who::upstream, Who::upstream_secret, Who::fork, Who::fork_secret,
                               Who::fork_token};

std::unique_ptr<ScriptedClient> make_client(Who who, const std::string& secret = "secret") {
    switch (who) {
        case Who::upstream:
            return std::make_unique<UpstreamClient>(std::nullopt);
        case Who::upstream_secret:
            return std::make_unique<UpstreamClient>(secret);
        case Who::fork:
            return std::make_unique<ForkClient>(std::nullopt);
        case Who::fork_secret:
            return std::make_unique<ForkClient>(secret);
        case Who::fork_token:
            return std::make_unique<ForkClient>("tk_0123");
    }
    return nullptr;
}

struct Relay {
    DialectMode mode;
    bool has_secret;
    Judge judge;
};

Relay relay(DialectMode mode, bool with_secret) {
    const auto authentication =
        with_secret ? Authentication::with_secret("secret") : Authentication::open();
    return {mode, with_secret, [authentication](const Credential& credential) {
                return Judgement{authentication.judge(credential), 0};
            }};
}

// The rows of §5.3 with a backend, as a judge that takes 50 ms: what a later one must do.
Relay backend_relay() {
    return {DialectMode::automatic, false, [](const Credential& credential) {
                if (credential.kind == Credential::Kind::token) {
                    return Judgement{{true, {}}, 50 * millisecond_ns};
                }
                return Judgement{
                    {false, "Authentication required. Please provide a valid API key."}, 0};
            }};
}

std::string talk(const Relay& relay, ScriptedClient& client, DialectHint hint,
                 const Network& network) {
    HandshakeOptions options;
    options.mode = relay.mode;
    options.has_secret = relay.has_secret;
    Conversation conversation{options, hint, relay.judge, client, network};
    const Step step = conversation.run();
    EXPECT_LE(conversation.challenge_count(), relay.has_secret ? 1 : 0);
    if (client.outcome() == "ok") {
        EXPECT_EQ(step.next, Step::Next::open_tunnel);
    }
    return client.outcome().value_or("no outcome");
}

constexpr std::array all_hints{DialectHint::unknown, DialectHint::only_upstream,
                               DialectHint::any_fork};
// Loopback, a country, an ocean, a satellite; then a lost first packet that comes after the grace
// period for strangers and before the one for fork clients.
constexpr Network loopback{};
constexpr Network lossy{30 * millisecond_ns, 250 * millisecond_ns};
constexpr std::array<Network, 5> networks{loopback, Network{30 * millisecond_ns},
                                          Network{120 * millisecond_ns},
                                          Network{250 * millisecond_ns}, lossy};

// One column of the matrix, in the order of `everybody`.
void expect_column(const Relay& relay, const std::array<std::string, 5>& expected) {
    for (std::size_t row = 0; row < everybody.size(); ++row) {
        for (const DialectHint hint : all_hints) {
            for (const Network& network : networks) {
                const auto client = make_client(everybody[row]);
                EXPECT_EQ(talk(relay, *client, hint, network), expected[row])
                    << "row " << row << " hint " << static_cast<int>(hint) << network;
            }
        }
    }
}

// --- The originals' columns, by force mode -----------------------------------------------------

TEST(Matrix, column_upstream_without_secret) {
    expect_column(relay(DialectMode::upstream, false),
                  {"ok", "timed out", "ok", not_required, "unexpected EOF"});
}

TEST(Matrix, column_upstream_with_secret) {
    // The fork's clients meet the Challenge first: the one with the secret answers it, and the
    // server, which took the Hello for a missing secret, has refused already.
    expect_column(
        relay(DialectMode::upstream, true),
        {no_client_secret, "ok", no_client_secret, secret_required, "stopped at the challenge"});
}

TEST(Matrix, column_fork_open) {
    expect_column(relay(DialectMode::fork, false), {"ok", "timed out", "ok", not_required, "ok"});
}

TEST(Matrix, column_fork_with_secret) {
    expect_column(relay(DialectMode::fork, true),
                  {no_client_secret, "timed out", no_client_secret, "ok", not_supported});
}

// --- Auto: all cells that are ok in either original are ok on the one port ----------------------

TEST(Matrix, auto_without_secret) {
    expect_column(relay(DialectMode::automatic, false),
                  {"ok", "timed out", "ok", not_required, "ok"});
}

TEST(Matrix, auto_with_secret_serves_upstream_and_fork_clients_on_one_port) {
    const Relay ours = relay(DialectMode::automatic, true);
    for (const Who who : {Who::upstream_secret, Who::fork_secret}) {
        for (const DialectHint hint : all_hints) {
            for (const Network& network : networks) {
                const auto client = make_client(who);
                EXPECT_EQ(talk(ours, *client, hint, network), "ok")
                    << static_cast<int>(who) << static_cast<int>(hint) << network;
            }
        }
    }
    for (const Who who : {Who::upstream, Who::fork}) {
        for (const DialectHint hint : all_hints) {
            for (const Network& network : networks) {
                const auto client = make_client(who);
                EXPECT_EQ(talk(ours, *client, hint, network), no_client_secret);
            }
        }
    }
}

TEST(Matrix, auto_with_secret_tells_a_token_client_or_stops_it_at_the_challenge) {
    const Relay ours = relay(DialectMode::automatic, true);
    for (const DialectHint hint : all_hints) {
        for (const Network& network : networks) {
            const bool challenged =
                hint == DialectHint::only_upstream ||
                (hint == DialectHint::unknown && network.first_packet_delay > 0);
            const auto client = make_client(Who::fork_token);
            EXPECT_EQ(talk(ours, *client, hint, network),
                      challenged ? "stopped at the challenge" : not_supported)
                << static_cast<int>(hint) << network;
        }
    }
}

TEST(Matrix, column_backend_by_a_judge_that_takes_its_time) {
    expect_column(backend_relay(),
                  {api_key_required, "timed out", api_key_required, api_key_required, "ok"});
}

TEST(Matrix, wrong_secrets_are_told_in_both_dialects) {
    for (const Who who : {Who::upstream_secret, Who::fork_secret}) {
        for (const DialectHint hint : all_hints) {
            const auto client = make_client(who, "Secret");
            EXPECT_EQ(talk(relay(DialectMode::automatic, true), *client, hint, loopback),
                      "server error: invalid secret");
        }
    }
}

// --- Data connections --------------------------------------------------------------------------

const std::string accept_frame = "{\"Accept\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"}\0"s;

class DataClient : public RustClient {
  public:
    explicit DataClient(std::optional<std::string> challenged_secret)
        : RustClient(10 * second_ns), secret_(std::move(challenged_secret)) {}

    std::string on_frame(const std::string& json) override {
        if (!secret_) {
            outcome_ = "polluted: " + json;  // it would land in the user's stream
            return {};
        }
        outcome_ = "ok";
        return answer(*secret_, json) + accept_frame;
    }
    void on_end_of_stream() override { outcome_ = "closed"; }

  private:
    std::string opening() override {
        if (secret_) {
            return {};
        }
        return accept_frame;
    }

    std::optional<std::string> secret_;
};

Step claim(const Relay& relay, DataClient& client, DialectHint hint, const Network& network) {
    HandshakeOptions options;
    options.mode = relay.mode;
    options.has_secret = relay.has_secret;
    Conversation conversation{options, hint, relay.judge, client, network};
    return conversation.run();
}

TEST(MatrixData, without_secret_is_claimed_in_every_mode) {
    for (const DialectMode mode :
         {DialectMode::automatic, DialectMode::upstream, DialectMode::fork}) {
        DataClient client{std::nullopt};
        EXPECT_EQ(claim(relay(mode, false), client, DialectHint::unknown, loopback).next,
                  Step::Next::claim_visitor);
    }
}

TEST(MatrixData, of_an_upstream_client_with_secret_is_claimed_and_authenticated) {
    for (const DialectMode mode : {DialectMode::automatic, DialectMode::upstream}) {
        for (const DialectHint hint : all_hints) {
            for (const Network& network : networks) {
                DataClient client{"secret"};
                const Step step = claim(relay(mode, true), client, hint, network);
                EXPECT_EQ(step.next, Step::Next::claim_visitor);
                EXPECT_TRUE(step.authenticated);
            }
        }
    }
}

TEST(MatrixData, of_a_fork_client_is_never_challenged_where_the_fork_was_seen) {
    for (const Network& network : networks) {
        DataClient client{std::nullopt};
        const Step step =
            claim(relay(DialectMode::automatic, true), client, DialectHint::any_fork, network);
        EXPECT_EQ(step.next, Step::Next::claim_visitor);
        EXPECT_FALSE(step.authenticated);
    }
}

TEST(MatrixData, of_a_fork_client_that_met_a_challenge_is_reset) {
    DataClient client{std::nullopt};
    const Step step =
        claim(relay(DialectMode::automatic, true), client, DialectHint::unknown, lossy);
    EXPECT_EQ(step.how, CloseHow::reset);
    EXPECT_EQ(step.learned, Dialect::fork);
}

// --- Our own client -----------------------------------------------------------------------------

TEST(MatrixOurs, client_finds_its_way_into_every_relay) {
    for (const DialectMode mode :
         {DialectMode::automatic, DialectMode::upstream, DialectMode::fork}) {
        for (const bool with_secret : {false, true}) {
            for (const DialectHint hint : all_hints) {
                for (const Network& network : {loopback, Network{120 * millisecond_ns}, lossy}) {
                    OurClient client{with_secret ? std::optional{"secret"s} : std::nullopt};
                    EXPECT_EQ(talk(relay(mode, with_secret), client, hint, network), "ok")
                        << static_cast<int>(mode) << with_secret << static_cast<int>(hint)
                        << network;
                }
            }
        }
    }
}

TEST(MatrixOurs, client_behind_a_satellite_is_told_to_retry_in_the_upstream_dialect) {
    const Network satellite{250 * millisecond_ns};
    OurClient first{"secret"};
    EXPECT_EQ(talk(relay(DialectMode::upstream, true), first, DialectHint::unknown, satellite),
              secret_required);
    ASSERT_EQ(first.retry_mode(), DialectMode::upstream);
    OurClient second{"secret", *first.retry_mode()};
    EXPECT_EQ(talk(relay(DialectMode::upstream, true), second, DialectHint::unknown, satellite),
              "ok");
}

TEST(MatrixOurs, client_with_a_token_finds_the_backend) {
    for (const Network& network : networks) {
        OurClient client{"tk_0123"};
        EXPECT_EQ(talk(backend_relay(), client, DialectHint::unknown, network), "ok");
    }
}

TEST(MatrixOurs, client_learns_the_dialect_of_the_relay) {
    OurClient upstream{"secret"};
    EXPECT_EQ(talk(relay(DialectMode::upstream, true), upstream, DialectHint::unknown, loopback),
              "ok");
    EXPECT_EQ(upstream.dialect(), Dialect::upstream);
    OurClient fork{"secret"};
    EXPECT_EQ(talk(relay(DialectMode::fork, true), fork, DialectHint::unknown, loopback), "ok");
    EXPECT_EQ(fork.dialect(), Dialect::fork);
    OurClient automatic{"secret"};
    EXPECT_EQ(talk(relay(DialectMode::automatic, true), automatic, DialectHint::unknown, loopback),
              "ok");
    EXPECT_EQ(automatic.dialect(), Dialect::upstream);
}

}  // namespace
}  // namespace bore::protocol
