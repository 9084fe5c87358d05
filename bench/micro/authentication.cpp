// The secret's arithmetic, and a whole handshake as the relay's side of it goes.
#include <string>

#include "bench/micro/conclude.hpp"
#include "controlplane/bore/authentication.hpp"
#include "controlplane/bore/server_handshake.hpp"

namespace bore::bench {

namespace {

using namespace protocol;

const Uuid challenge{{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x46, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc,
                      0xdd, 0xee, 0xff}};

void tag(benchmark::State& state) {
    const SecretKey key("secret");
    std::string made;
    for (auto _ : state) {
        made = key.tag_for(challenge);
        keep(made);
    }
    // Computed by another program (Python's hmac over the SHA-256 of the secret).
    conclude(state, "HMAC-SHA256 of a challenge, in hex", 1,
             made == "86775652a873aac56a15117438352e671b8cc35a174b6189afc23f66f2c5acd6");
}
BENCHMARK(tag)->Name("authentication/tag");

void verify(benchmark::State& state) {
    const SecretKey key("secret");
    const std::string right = key.tag_for(challenge);
    bool verified = false;
    for (auto _ : state) {
        verified = key.verifies(challenge, right);
        keep(verified);
    }
    conclude(state, "tag compared with the right one", 1, verified && !key.verifies(Uuid{}, right));
}
BENCHMARK(verify)->Name("authentication/verify");

void random_id(benchmark::State& state) {
    Uuid before;
    Uuid id;
    for (auto _ : state) {
        before = id;
        id = random_uuid_v4();
        keep(id);
    }
    conclude(state, "random id", 1, id != before && id != Uuid{});
}
BENCHMARK(random_id)->Name("authentication/random_id");

// Challenge out, tag in and judged, Hello in: what a tunnel costs the control thread beside its
// socket. The frames are cut and parsed.
void handshake(benchmark::State& state) {
    HandshakeOptions options;
    options.has_secret = true;
    options.draw_challenge = [] { return challenge; };
    const Authentication authentication = Authentication::with_secret("secret");
    const std::string tag_frame =
        "{\"Authenticate\":\"" + SecretKey("secret").tag_for(challenge) + "\"}";
    Step step;
    for (auto _ : state) {
        ServerHandshake machine(options);
        step = machine.start(base::second_ns, DialectHint::only_upstream);
        keep(step.send.data());
        machine.on_bytes();
        step = machine.on_frame(tag_frame);
        if (step.next == Step::Next::verify) {
            step = machine.on_verdict(authentication.judge(machine.credential()));
        }
        step = machine.on_frame("{\"Hello\":8080}");
        keep(step);
        step.send = {};  // a view into the machine
    }
    conclude(state, "handshake of a tunnel with a secret, without its sockets", 1,
             step.next == Step::Next::open_tunnel && step.port == 8080);
}
BENCHMARK(handshake)->Name("authentication/handshake");

}  // namespace

}  // namespace bore::bench
