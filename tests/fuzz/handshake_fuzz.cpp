// Both handshakes under any order of events, in every mode, with time at random. The invariants are
// those a relay relies on: at most one Challenge, nobody admitted without a verdict, an end within
// three frames and within the deadline, nothing sent into a stream that is handed over.
// Input: one byte of configuration, then events: one byte each, some followed by a frame's text.
#include <cstdint>
#include <string>
#include <string_view>

#include "controlplane/bore/client_handshake.hpp"
#include "controlplane/bore/server_handshake.hpp"
#include "dataplane/base/check.hpp"
#include "tests/fuzz/fuzz_input.hpp"

namespace {

using namespace bore::protocol;
using bore::base::millisecond_ns;
using bore::base::Nanoseconds;
using bore::base::second_ns;
using bore::fuzz::Input;

constexpr Uuid fixed_challenge{{0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}};
constexpr Nanoseconds start_time = 100 * second_ns;

const std::string& good_tag() {
    static const std::string tag = SecretKey{"secret"}.tag_for(fixed_challenge);
    return tag;
}

// A frame of the menu, or any text.
std::string client_frame(Input& input) {
    switch (input.below(8)) {
        case 0:
            return "{\"Hello\":8080}";
        case 1:
            return "{\"Authenticate\":\"" + good_tag() + "\"}";
        case 2:
            return "{\"Authenticate\":\"tk_0123\"}";
        case 3:
            return "{\"Accept\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"}";
        case 4:
            return "null";
        default:
            return input.text(input.byte());
    }
}

class ServerRun {
  public:
    explicit ServerRun(Input& input) : input_(input), handshake_(options(input.byte())) {}

    void run(DialectHint hint) {
        see(handshake_.start(now_, hint));
        while (!input_.empty() && !handshake_.finished()) {
            event();
        }
        now_ = start_time + 10 * second_ns;
        if (!handshake_.finished()) {
            see(handshake_.on_timer(now_));
        }
        BORE_CHECK(handshake_.finished(), "alive after its deadline");
        BORE_CHECK(handshake_.on_timer(now_).next == Step::Next::wait, "an event after the end");
        BORE_CHECK(handshake_.on_end_of_stream().send.empty(), "a frame after the end");
    }

  private:
    HandshakeOptions options(std::uint8_t choice) {
        options_.mode = static_cast<DialectMode>((choice & 0x0FU) % 3);
        options_.has_secret = (choice & 0x80U) != 0;
        options_.challenge_grace = (choice & 0x40U) != 0 ? 0 : 100 * millisecond_ns;
        options_.draw_challenge = [] { return fixed_challenge; };
        return options_;
    }

    void event() {
        switch (input_.below(7)) {
            case 0:
            case 1:
            case 2:
                if (handshake_.wants_frame()) {
                    frame(client_frame(input_));
                } else {
                    judge();
                }
                return;
            case 3:
                now_ += Nanoseconds{input_.byte()} * 20 * millisecond_ns;
                see(handshake_.on_timer(now_));
                return;
            case 4:
                handshake_.on_bytes();
                check_deadline();
                return;
            case 5:
                see(handshake_.on_end_of_stream());
                BORE_CHECK(handshake_.finished(), "alive after the end of the stream");
                return;
            default:
                see(handshake_.on_frame_too_long());
                BORE_CHECK(handshake_.finished(), "alive after a frame that is too long");
        }
    }

    void frame(const std::string& json) {
        ++frame_count_;
        const auto message = parse_client_message(json);
        said_hello_ = said_hello_ || (message && std::holds_alternative<Hello>(*message));
        see(handshake_.on_frame(json));
        BORE_CHECK(handshake_.finished() || frame_count_ < 3, "alive after three frames");
    }

    // Sometimes the real judge, sometimes a verdict of the fuzzer's: a backend may say anything.
    void judge() {
        const Credential& credential = handshake_.credential();
        Verdict verdict{(input_.byte() & 1U) != 0, "refused"};
        if (options_.has_secret) {
            static const auto authentication = Authentication::with_secret("secret");
            verdict = authentication.judge(credential);
            const bool good = credential.kind == Credential::Kind::tag &&
                              credential.text == good_tag() && challenge_count_ == 1;
            BORE_CHECK(verdict.admitted == good || credential.text.size() == tag_hex_bytes,
                       "the judge admits what is not the tag");
        }
        admitted_ = verdict.admitted;
        see(handshake_.on_verdict(verdict));
    }

    void see(const Step& step) {
        const bool challenge = step.send.starts_with("{\"Challenge\":\"");
        const bool error = step.send.starts_with("{\"Error\":\"");
        BORE_CHECK(step.send.empty() || challenge || error, "sent neither Challenge nor Error");
        BORE_CHECK(step.send.size() <= max_frame_wire_bytes, "sent more than a frame");
        if (challenge) {
            ++challenge_count_;
            BORE_CHECK(challenge_count_ == 1, "two Challenges");
            BORE_CHECK(options_.has_secret, "a Challenge without a secret");
            BORE_CHECK(step.next == Step::Next::wait, "a Challenge in the last step");
            BORE_CHECK(options_.mode != DialectMode::fork || said_hello_,
                       "the fork's client was challenged before its Hello");
        }
        BORE_CHECK(error == (step.next == Step::Next::close && !step.send.empty()),
                   "an Error goes with a close");
        BORE_CHECK(handshake_.finished() == (step.next == Step::Next::open_tunnel ||
                                             step.next == Step::Next::claim_visitor ||
                                             step.next == Step::Next::close),
                   "the end and the last step belong together");
        check_end(step);
        check_deadline();
    }

    void check_end(const Step& step) {
        if (step.next == Step::Next::open_tunnel) {
            BORE_CHECK(admitted_, "a tunnel without a verdict");
        }
        if (step.next == Step::Next::claim_visitor) {
            BORE_CHECK(step.authenticated == (options_.has_secret && admitted_),
                       "authenticated means a verdict on a tag");
            BORE_CHECK(step.authenticated || challenge_count_ == 0,
                       "a polluted stream was handed over");
        }
        if (step.next == Step::Next::close) {
            BORE_CHECK(step.reason != CloseReason::none, "a close without a reason");
            BORE_CHECK((step.how == CloseHow::after_error) <= !step.send.empty(), "no Error sent");
            BORE_CHECK((step.how == CloseHow::silently) <= step.send.empty(), "not silent");
        }
    }

    void check_deadline() {
        if (handshake_.finished()) {
            return;
        }
        BORE_CHECK(handshake_.deadline() >= start_time, "a deadline before the start");
        BORE_CHECK(handshake_.deadline() <= start_time + 10 * second_ns, "a deadline too late");
    }

    Input& input_;
    HandshakeOptions options_;
    ServerHandshake handshake_;
    Nanoseconds now_ = start_time;
    int challenge_count_ = 0;
    int frame_count_ = 0;
    bool said_hello_ = false;
    bool admitted_ = false;
};

std::string server_frame(Input& input) {
    switch (input.below(6)) {
        case 0:
            return "{\"Challenge\":\"00010203-0405-4607-8809-0a0b0c0d0e0f\"}";
        case 1:
            return "{\"Hello\":34185}";
        case 2:
            return "{\"Error\":\"server requires secret, but no secret was provided\"}";
        case 3:
            return "\"Heartbeat\"";
        default:
            return input.text(input.byte());
    }
}

void run_client(Input& input) {
    ClientOptions options;
    const std::uint8_t choice = input.byte();
    constexpr const char* secrets[] = {"secret", "", "tk_0123", nullptr};
    if (const char* secret = secrets[choice >> 6U]) {
        options.secret = secret;
    }
    options.mode = static_cast<DialectMode>((choice & 0x0FU) % 3);
    const bool data = (choice & 0x20U) != 0;
    ClientHandshake handshake =
        data ? ClientHandshake::data(options, static_cast<Dialect>((choice >> 4U) & 1U), Uuid{})
             : ClientHandshake::control(options, 8080);

    Nanoseconds now = start_time;
    std::string sent;
    const auto see = [&](const ClientStep& step) {
        sent += step.send;
        BORE_CHECK((step.next == ClientStep::Next::failed) == !step.text.empty(),
                   "a failure has a text");
        BORE_CHECK(handshake.wants_frame() == (step.next == ClientStep::Next::wait),
                   "the end and the last step belong together");
        BORE_CHECK(handshake.deadline() <= start_time + 10 * second_ns, "a deadline too late");
    };
    see(handshake.start(now));
    int frame_count = 0;
    while (!input.empty() && handshake.wants_frame()) {
        switch (input.below(6)) {
            case 0:
                now += Nanoseconds{input.byte()} * 20 * millisecond_ns;
                see(handshake.on_timer(now));
                break;
            case 1:
                see(handshake.on_end_of_stream());
                break;
            case 2:
                see(handshake.on_frame_too_long());
                break;
            default:
                ++frame_count;
                see(handshake.on_frame(server_frame(input)));
                BORE_CHECK(!handshake.wants_frame() || frame_count < 2, "alive after two frames");
        }
    }
    if (handshake.wants_frame()) {
        see(handshake.on_timer(start_time + 400 * millisecond_ns));
        see(handshake.on_timer(start_time + 10 * second_ns));
    }
    BORE_CHECK(!handshake.wants_frame(), "alive after its deadline");
    BORE_CHECK(sent.size() <= 2 * max_frame_wire_bytes, "more than two frames sent");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input{data, size};
    const std::uint8_t choice = input.byte();
    if (choice % 4 == 3) {
        run_client(input);
        return 0;
    }
    ServerRun{input}.run(static_cast<DialectHint>(choice % 4));
    return 0;
}
