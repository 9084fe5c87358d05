// bore-wire: joins two network interfaces and spoils what passes between them. Two lanes, one
// thread: receive a burst from each end, ask its lane, send what is due to the other end, sleep
// until a frame comes or is due. SIGUSR1 prints the counters, SIGUSR2 cuts and mends the wire.
#include <poll.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>

#include "tests/wire/buffers.hpp"
#include "tests/wire/end.hpp"
#include "tests/wire/lane.hpp"

namespace bore::wire {
namespace {

constexpr std::string_view usage = R"(bore-wire --left END --right END [impairments]
Joins two interfaces and loses, doubles, reorders and delays what passes.
  END                   INTERFACE or NAMESPACE:INTERFACE, the namespace as a path:
                        /run/netns/a:veth0, /proc/123/ns/net:eth0
  --loss PERCENT        of TCP segments, each way       --duplicate PERCENT
  --reorder PERCENT     let 1 to 8 others pass first    --delay-ms MS   each way
  --drop-handshake-ack  lose the third segment of every handshake
  --direction both|left|right    impair only what comes from this end (delay: always both)
  --seed N              the same seed and the same frames give the same fates
Prints `ready` and, at SIGUSR1 and at its end, its counters as one line of JSON. SIGUSR2 cuts the
wire and mends it again.
)";

struct Options {
    std::string left, right, direction{"both"};
    Impairments impairments;
};

volatile std::sig_atomic_t report_wanted = 0;
volatile std::sig_atomic_t cut = 0;
volatile std::sig_atomic_t end_wanted = 0;

void on_signal(int number) {
    if (number == SIGUSR1) {
        report_wanted = 1;
    } else if (number == SIGUSR2) {
        cut = cut == 0 ? 1 : 0;
    } else {
        end_wanted = 1;
    }
}

Nanoseconds now() {
    timespec time{};
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<Nanoseconds>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

class Wire {
  public:
    explicit Wire(const Options& options)
        : ends_{End{options.left}, End{options.right}},
          lanes_{Lane{of(options, "left"), 0}, Lane{of(options, "right"), 1}} {}

    // `masked`: the signals of this program are blocked but for inside ppoll(), so none is missed.
    void run(const sigset_t& unmasked) {
        while (end_wanted == 0) {
            const Nanoseconds time = now();
            for (std::size_t from = 0; from < 2; ++from) {
                carry(from, time);
            }
            wait(unmasked);
            if (report_wanted != 0) {
                report_wanted = 0;
                report();
            }
        }
        report();
    }

  private:
    static Impairments of(const Options& options, std::string_view end) {
        if (options.direction == "both" || options.direction == end) {
            return options.impairments;
        }
        Impairments none;
        none.delay_ns = options.impairments.delay_ns;
        return none;
    }

    void carry(std::size_t from, Nanoseconds time) {
        Lane& lane = lanes_[from];
        if (buffers_.free_count() == 0) {
            ++lane.counters().no_buffer;
        }
        received_.clear();
        ends_[from].receive(buffers_, received_, lane.counters());
        for (const BufferIndex buffer : received_) {
            if (cut != 0) {
                ++lane.counters().cut;
                buffers_.release(buffer);
                continue;
            }
            const Parsed parsed = parse({buffers_.data(buffer), buffers_.length_bytes(buffer)});
            switch (lane.push(buffer, parsed, time)) {
                case Lane::Fate::dropped:
                    buffers_.release(buffer);
                    break;
                case Lane::Fate::sent_twice:
                    buffers_.refer(buffer);
                    break;
                case Lane::Fate::sent:
                    break;
            }
        }
        busy_[from] = received_.size() == burst_frames;
        due_.clear();
        lane.take_due(time, burst_frames, due_);
        blocked_[from] = false;
        std::size_t sent = 0;
        while (sent < due_.size() && !blocked_[from]) {
            const std::size_t taken =
                ends_[1 - from].send(buffers_, std::span(due_).subspan(sent), lane.counters());
            for (std::size_t index = 0; index < taken; ++index) {
                buffers_.release(due_[sent + index]);
            }
            sent += taken;
            blocked_[from] = taken == 0;
        }
        lane.give_back(std::span(due_).subspan(sent), time);
    }

    void wait(const sigset_t& unmasked) {
        std::array<pollfd, 2> polled{};
        Nanoseconds next = -1;
        for (std::size_t from = 0; from < 2; ++from) {
            polled[from].fd = ends_[from].descriptor();
            polled[from].events = static_cast<short>(POLLIN | (blocked_[1 - from] ? POLLOUT : 0));
            const Nanoseconds due = blocked_[from] ? -1 : lanes_[from].next_due();
            next = next < 0 || (due >= 0 && due < next) ? due : next;
        }
        Nanoseconds left = next < 0 ? 1'000'000'000 : std::max<Nanoseconds>(next - now(), 0);
        if (busy_[0] || busy_[1]) {
            left = 0;
        }
        const timespec timeout{left / 1'000'000'000, left % 1'000'000'000};
        ppoll(polled.data(), polled.size(), &timeout, &unmasked);
    }

    void report() {
        std::string text = "{";
        for (std::size_t from = 0; from < 2; ++from) {
            const LaneCounters& c = lanes_[from].counters();
            text += from == 0 ? "\"from_left\": {" : ", \"from_right\": {";
            const std::array<std::pair<const char*, std::uint64_t>, 14> fields{
                {{"received_frames", c.received_frames},
                 {"received_bytes", c.received_bytes},
                 {"sent_frames", c.sent_frames},
                 {"sent_bytes", c.sent_bytes},
                 {"lost", c.lost},
                 {"duplicated", c.duplicated},
                 {"reordered", c.reordered},
                 {"handshake_acks_dropped", c.handshake_acks_dropped},
                 {"cut", c.cut},
                 {"overruns", ends_[from].overruns()},
                 {"no_buffer", c.no_buffer},
                 {"send_errors", c.send_errors},
                 {"oversized", c.oversized},
                 {"waiting", lanes_[from].waiting()}}};
            for (std::size_t index = 0; index < fields.size(); ++index) {
                text += std::string(index == 0 ? "\"" : ", \"") + fields[index].first +
                        "\": " + std::to_string(fields[index].second);
            }
            text += "}";
        }
        std::puts((text + "}").c_str());
        std::fflush(stdout);
    }

    std::array<End, 2> ends_;
    std::array<Lane, 2> lanes_;
    Buffers buffers_;
    std::vector<BufferIndex> received_, due_;
    std::array<bool, 2> busy_{}, blocked_{};
};

[[noreturn]] void refuse(const std::string& sentence) {
    std::fprintf(stderr, "bore-wire: %s (--help tells more)\n", sentence.c_str());
    std::exit(2);
}

double number(const std::string& name, const std::string& text, double most) {
    double value = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < 0 || value > most) {
        refuse(name + " takes a number from 0 to " + std::to_string(static_cast<long>(most)) +
               ", not " + text);
    }
    return value;
}

Options parse_arguments(int count, char** words) {
    Options options;
    Impairments& impairments = options.impairments;
    for (int index = 1; index < count; ++index) {
        const std::string name = words[index];
        if (name == "--help") {
            std::fputs(usage.data(), stdout);
            std::exit(0);
        }
        if (name == "--drop-handshake-ack") {
            impairments.drop_handshake_ack = true;
            continue;
        }
        if (++index == count) {
            refuse(name + " needs a value, or is unknown");
        }
        const std::string value = words[index];
        if (name == "--left") {
            options.left = value;
        } else if (name == "--right") {
            options.right = value;
        } else if (name == "--direction") {
            options.direction = value;
        } else if (name == "--loss") {
            impairments.loss_percent = number(name, value, 100);
        } else if (name == "--duplicate") {
            impairments.duplicate_percent = number(name, value, 100);
        } else if (name == "--reorder") {
            impairments.reorder_percent = number(name, value, 100);
        } else if (name == "--delay-ms") {
            impairments.delay_ns = static_cast<Nanoseconds>(number(name, value, 10'000) * 1e6);
        } else if (name == "--seed") {
            impairments.seed = static_cast<std::uint64_t>(number(name, value, 9e15));
        } else {
            refuse("unknown option " + name);
        }
    }
    if (options.left.empty() || options.right.empty()) {
        refuse("--left and --right must name the two interfaces");
    }
    if (options.direction != "both" && options.direction != "left" &&
        options.direction != "right") {
        refuse("--direction is both, left or right, not " + options.direction);
    }
    return options;
}

int run(int count, char** words) {
    const Options options = parse_arguments(count, words);
    sigset_t blocked, unmasked;
    sigemptyset(&blocked);
    struct sigaction action{};
    action.sa_handler = on_signal;
    for (const int number : {SIGUSR1, SIGUSR2, SIGTERM, SIGINT}) {
        sigaction(number, &action, nullptr);
        sigaddset(&blocked, number);
    }
    sigprocmask(SIG_BLOCK, &blocked, &unmasked);
    Wire wire{options};
    std::puts("ready");
    std::fflush(stdout);
    wire.run(unmasked);
    return 0;
}

}  // namespace
}  // namespace bore::wire

int main(int count, char** words) {
    return bore::wire::run(count, words);
}
