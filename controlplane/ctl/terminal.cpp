// See terminal.hpp. ncurses' macros (erase, move, ...) stay in this file.
#include "controlplane/ctl/terminal.hpp"

#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>
// Function calls instead of macros that are named like half of the standard library.
#define NCURSES_NOMACROS 1
#include <ncurses.h>

namespace bore::ctl {

namespace {

constexpr int escape_delay_ms = 25;
constexpr int escape_key = 27;
constexpr int delete_key = 127;
constexpr short warning_pair = 1;

chtype attribute_of(LineStyle style) {
    switch (style) {
        case LineStyle::plain:
            break;
        case LineStyle::title:
            return A_BOLD;
        case LineStyle::heading:
        case LineStyle::help:
            return A_REVERSE;
        case LineStyle::warning:
            return A_BOLD | static_cast<chtype>(COLOR_PAIR(warning_pair));
    }
    return A_NORMAL;
}

}  // namespace

std::expected<std::unique_ptr<Terminal>, std::string> Terminal::open() {
    std::setlocale(LC_ALL, "");  // NOLINT(concurrency-mt-unsafe): before any other thread
    std::unique_ptr<Terminal> terminal(new Terminal());
    SCREEN* const screen = ::newterm(nullptr, stdout, stdin);
    if (screen == nullptr) {
        const char* const type = std::getenv("TERM");  // NOLINT(concurrency-mt-unsafe)
        return std::unexpected("TERM=" + std::string(type == nullptr ? "" : type) +
                               ": no such terminal is known; set TERM, as in TERM=xterm, or use "
                               "--once");
    }
    terminal->screen_ = screen;
    // ncurses' own handlers change the terminal, which stops a program in the background: one that
    // was stopped there could not be ended but by SIGKILL.
    for (const int number : {SIGINT, SIGTERM, SIGTSTP}) {
        std::signal(number, SIG_DFL);
    }
    terminal->has_unicode_ = std::strcmp(::nl_langinfo(CODESET), "UTF-8") == 0;
    ::set_escdelay(escape_delay_ms);
    ::cbreak();
    ::noecho();
    ::nonl();
    ::keypad(stdscr, TRUE);
    ::nodelay(stdscr, TRUE);
    ::curs_set(0);
    if (::has_colors() && ::start_color() == OK && ::use_default_colors() == OK) {
        ::init_pair(warning_pair, COLOR_RED, -1);
    }
    return terminal;
}

Terminal::~Terminal() {
    if (screen_ != nullptr) {
        // From the background it would stop this program, which is to end.
        std::signal(SIGTTOU, SIG_IGN);
        ::curs_set(1);
        leave();
        ::delscreen(static_cast<SCREEN*>(screen_));
    }
}

// The cursor comes back with it, and is hidden again by the next show().
void Terminal::leave() {
    ::endwin();
}

bool Terminal::is_ours() const {
    const pid_t foreground = ::tcgetpgrp(STDIN_FILENO);
    return foreground < 0 || foreground == ::getpgrp();
}

void Terminal::show(const std::vector<ScreenLine>& shown) {
    ::werase(stdscr);
    for (std::size_t line = 0; line < shown.size(); ++line) {
        const auto row = static_cast<int>(line);
        const chtype attribute = attribute_of(shown[line].style);
        ::wattrset(stdscr, static_cast<int>(attribute));
        if (shown[line].style == LineStyle::help) {
            // The bar reaches across; the very last cell would scroll some terminals.
            ::wmove(stdscr, row, 0);
            ::whline(stdscr, ' ' | attribute, static_cast<int>(columns()) - 1);
        }
        ::wmove(stdscr, row, 0);
        ::waddnstr(stdscr, shown[line].text.c_str(), -1);
    }
    ::wattrset(stdscr, A_NORMAL);
    ::wrefresh(stdscr);
}

Input Terminal::read() {
    const int key = ::wgetch(stdscr);
    switch (key) {
        case ERR:
            return {};
        case KEY_UP:
            return {.key = Key::up};
        case KEY_DOWN:
            return {.key = Key::down};
        case KEY_PPAGE:
            return {.key = Key::page_up};
        case KEY_NPAGE:
            return {.key = Key::page_down};
        case KEY_HOME:
            return {.key = Key::home};
        case KEY_ENTER:
        case '\r':
        case '\n':
            return {.key = Key::enter};
        case escape_key:
            return {.key = Key::escape};
        case KEY_BACKSPACE:
        case delete_key:
        case '\b':
            return {.key = Key::backspace};
        default:
            break;
    }
    // Keys that mean nothing here count as nothing typed, but more may wait behind them.
    return key >= ' ' && key < delete_key
               ? Input{.key = Key::character, .character = static_cast<char>(key)}
               : Input{.key = Key::character, .character = '\0'};
}

void Terminal::resized() {
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
        ::resizeterm(size.ws_row, size.ws_col);
        ::clearok(stdscr, TRUE);
    }
}

std::size_t Terminal::lines() const {
    return static_cast<std::size_t>(::getmaxy(stdscr));
}

std::size_t Terminal::columns() const {
    return static_cast<std::size_t>(::getmaxx(stdscr));
}

}  // namespace bore::ctl
