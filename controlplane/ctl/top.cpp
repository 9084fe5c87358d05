// The loop of `borectl top`: 1. look at the segment when it is time; 2. lay out and show; 3. wait
// for a key, a signal or the time. A relay that is gone keeps its last picture, with the reason
// above it.
#include "controlplane/ctl/top.hpp"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <utility>

#include "controlplane/ctl/terminal.hpp"
#include "controlplane/ctl/top_layout.hpp"
#include "dataplane/abi/segment_reader.hpp"

namespace bore::ctl {

namespace {

constexpr std::size_t columns_of_a_pipe = 100;
constexpr std::array<base::Nanoseconds, 8> intervals_ns{
    100 * base::millisecond_ns, 250 * base::millisecond_ns, 500 * base::millisecond_ns,
    1 * base::second_ns,        2 * base::second_ns,        5 * base::second_ns,
    10 * base::second_ns,       60 * base::second_ns};

int fail(const std::string& sentence) {
    std::fprintf(stderr, "borectl: %s\n", sentence.c_str());
    return exit_no_relay;
}

// ---- Once

int print_top(abi::SegmentReader& reader, TopModel& model, const TopOptions& options) {
    for (int look = 0; look < 2; ++look) {
        if (look > 0) {
            const timespec pause{
                .tv_sec = static_cast<time_t>(options.interval_ns / base::second_ns),
                .tv_nsec = static_cast<long>(options.interval_ns % base::second_ns)};
            ::nanosleep(&pause, nullptr);
        }
        const auto snapshot = reader.read();
        if (!snapshot) {
            return fail(snapshot.error().text);
        }
        model.add(*snapshot);
    }
    const char* const columns = std::getenv("COLUMNS");  // NOLINT(concurrency-mt-unsafe)
    const long wanted = columns == nullptr ? 0 : std::strtol(columns, nullptr, 10);
    const std::size_t width =
        wanted > 0 && wanted < 10'000 ? static_cast<std::size_t>(wanted) : columns_of_a_pipe;
    std::fputs(print_once(model, width, options.ascii).c_str(), stdout);
    return model.summary().stale.empty() ? exit_done : exit_stale;
}

// ---- Live

// SIGWINCH and what ends the program, as a descriptor, so that nothing is interrupted half-way.
class Signals {
  public:
    Signals() {
        ::sigemptyset(&set_);
        for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGTSTP}) {
            ::sigaddset(&set_, number);
        }
        ::pthread_sigmask(SIG_BLOCK, &set_, &before_);
        descriptor_ = ::signalfd(-1, &set_, SFD_NONBLOCK | SFD_CLOEXEC);
    }
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;
    ~Signals() {
        if (descriptor_ >= 0) {
            ::close(descriptor_);
        }
        ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    }
    [[nodiscard]] int descriptor() const { return descriptor_; }
    // While it lives signals do what they did before: a person may stop the program, and end it
    // while it is stopped.
    class Released {
      public:
        explicit Released(const Signals& signals) : signals_(signals) {
            ::pthread_sigmask(SIG_SETMASK, &signals.before_, nullptr);
        }
        Released(const Released&) = delete;
        Released& operator=(const Released&) = delete;
        ~Released() { ::pthread_sigmask(SIG_BLOCK, &signals_.set_, nullptr); }

      private:
        const Signals& signals_;
    };
    // 0 = none waits.
    [[nodiscard]] int next() const {
        signalfd_siginfo info{};
        return ::read(descriptor_, &info, sizeof info) == ssize_t{sizeof info}
                   ? static_cast<int>(info.ssi_signo)
                   : 0;
    }

  private:
    sigset_t set_{};
    sigset_t before_{};
    int descriptor_{-1};
};

class LiveTop {
  public:
    LiveTop(abi::SegmentReader& reader, TopModel& model, Terminal& terminal, Signals& signals,
            const TopOptions& options)
        : reader_(reader), model_(model), terminal_(terminal), signals_(signals) {
        view_.interval_ns = options.interval_ns;
        view_.ascii = options.ascii || !terminal.has_unicode();
    }

    // Until a key or a signal ends it. The error is what the segment's reader said at last.
    void run() {
        while (!ended_) {
            const base::Nanoseconds now = base::monotonic_now();
            if (now >= due_at_) {
                look();
                due_at_ = now + view_.interval_ns;
            }
            show();
            wait();
        }
    }

  private:
    void look() {
        const auto snapshot = reader_.read();
        if (snapshot) {
            lost_.clear();
            model_.add(*snapshot);
        } else {
            lost_ = snapshot.error().text;
        }
    }

    void show() {
        view_.lines = terminal_.lines();
        view_.columns = terminal_.columns();
        const std::size_t count = model_.rows().size();
        view_.scroll = std::min(view_.scroll, count == 0 ? 0 : count - 1);
        auto lines = lay_out(model_, view_);
        if (!lost_.empty() && !lines.empty()) {
            lines[std::min<std::size_t>(2, lines.size() - 1)] = {lost_.substr(0, view_.columns),
                                                                 LineStyle::warning};
        }
        terminal_.show(lines);
    }

    void wait() {
        std::array<pollfd, 2> watched{
            {{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0},
             {.fd = signals_.descriptor(), .events = POLLIN, .revents = 0}}};
        const base::Nanoseconds now = base::monotonic_now();
        const base::Nanoseconds left = due_at_ > now ? due_at_ - now : 0;
        const auto timeout_ms = static_cast<int>(left / base::millisecond_ns + 1);
        if (::poll(watched.data(), watched.size(), timeout_ms) <= 0) {
            return;
        }
        while (const int number = signals_.next()) {
            if (number == SIGWINCH) {
                terminal_.resized();
            } else if (number == SIGTSTP) {
                stop();
            } else {
                ended_ = true;
            }
        }
        if (ended_) {
            return;  // a terminal that is another program's now would stop this one at a read
        }
        if ((watched[0].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0) {
            ended_ = true;  // the terminal was closed
        }
        for (Input input = terminal_.read(); input.key != Key::none && !ended_;
             input = terminal_.read()) {
            if (view_.editing_filter) {
                edit_filter(input);
            } else {
                press(input);
            }
        }
    }

    // Ctrl-Z. Goes on when a person fetches it to the foreground; in the background it stays
    // stopped. Whatever ends it meanwhile finds the terminal given back.
    void stop() {
        terminal_.leave();
        {
            const Signals::Released released(signals_);
            ::raise(SIGTSTP);
            while (!terminal_.is_ours()) {
                ::raise(SIGSTOP);
            }
        }
        terminal_.resized();
    }

    void edit_filter(Input input) {
        std::string filter = model_.filter();
        switch (input.key) {
            case Key::enter:
                view_.editing_filter = false;
                return;
            case Key::escape:
                view_.editing_filter = false;
                filter.clear();
                break;
            case Key::backspace:
                if (!filter.empty()) {
                    filter.pop_back();
                }
                break;
            case Key::character:
                if (input.character != '\0') {
                    filter += input.character;
                }
                break;
            default:
                return;
        }
        view_.scroll = 0;
        model_.set_filter(std::move(filter));
    }

    void press(Input input) {
        const std::size_t page = std::max<std::size_t>(1, rows_that_fit(model_, view_));
        switch (input.key) {
            case Key::up:
                view_.scroll -= view_.scroll > 0 ? 1 : 0;
                break;
            case Key::down:
                ++view_.scroll;
                break;
            case Key::page_up:
                view_.scroll -= std::min(view_.scroll, page);
                break;
            case Key::page_down:
                view_.scroll += page;
                break;
            case Key::home:
                view_.scroll = 0;
                break;
            case Key::character:
                press_character(input.character);
                break;
            default:
                break;
        }
    }

    void press_character(char character) {
        switch (character) {
            case 'q':
            case 'Q':
                ended_ = true;
                break;
            case 's':
                model_.next_sort();
                break;
            case 'r':
                model_.reverse();
                break;
            case '/':
                view_.editing_filter = true;
                break;
            case 'p':
            case ' ':
                model_.set_paused(!model_.paused());
                break;
            case 'h':
            case '?':
                view_.help = !view_.help;
                break;
            case '+':
            case '=':
                set_interval(true);
                break;
            case '-':
                set_interval(false);
                break;
            default:
                break;
        }
    }

    void set_interval(bool longer) {
        const auto* const next =
            std::upper_bound(intervals_ns.begin(), intervals_ns.end(), view_.interval_ns);
        const auto* const previous =
            std::lower_bound(intervals_ns.begin(), intervals_ns.end(), view_.interval_ns);
        if (longer && next != intervals_ns.end()) {
            view_.interval_ns = *next;
        } else if (!longer && previous != intervals_ns.begin()) {
            view_.interval_ns = *(previous - 1);
        }
        due_at_ = std::min(due_at_, base::monotonic_now() + view_.interval_ns);
    }

    abi::SegmentReader& reader_;
    TopModel& model_;
    Terminal& terminal_;
    Signals& signals_;
    TopView view_;
    base::Nanoseconds due_at_{0};
    bool ended_{false};
    std::string lost_;  // why the segment cannot be read now
};

}  // namespace

int run_top(abi::SegmentReader reader, const TopOptions& options) {
    TopModel model;
    model.set_sort(options.sort);
    model.set_filter(options.filter);
    if (options.once || ::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0) {
        return print_top(reader, model, options);
    }
    if (const auto first = reader.read(); !first) {
        return fail(first.error().text);
    }
    Signals signals;
    const auto terminal = Terminal::open();
    if (!terminal) {
        return fail(terminal.error());
    }
    LiveTop(reader, model, **terminal, signals, options).run();
    return exit_done;
}

}  // namespace bore::ctl
