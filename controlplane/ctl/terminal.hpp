// The terminal, by ncurses: lines out, keys in, its size. The only file that knows ncurses. While
// one lives the terminal is its; the destructor gives it back as it was, whatever ended the
// program.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>
#include <vector>

#include "controlplane/ctl/top_layout.hpp"

namespace bore::ctl {

enum class Key : std::uint8_t {
    none,
    character,  // Input::character
    up,
    down,
    page_up,
    page_down,
    home,
    enter,
    escape,
    backspace,
    gone,  // the terminal itself
};

struct Input {
    Key key{Key::none};
    char character{0};
};

class Terminal {
  public:
    // The error is a sentence: no terminal, or one that terminfo does not know.
    [[nodiscard]] static std::expected<std::unique_ptr<Terminal>, std::string> open();
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;
    ~Terminal();

    void show(const std::vector<ScreenLine>& lines);
    // What was typed; Key::none when nothing waits.
    [[nodiscard]] Input read();
    // Gives the terminal back; the next show() takes it again.
    void leave();
    // Whether this program is in the foreground of its terminal, or the terminal has gone.
    [[nodiscard]] bool is_ours() const;
    // Asks for the size again: SIGWINCH came.
    void resized();
    [[nodiscard]] std::size_t lines() const;
    [[nodiscard]] std::size_t columns() const;
    // Whether block characters can be shown.
    [[nodiscard]] bool has_unicode() const { return has_unicode_; }

  private:
    Terminal() = default;

    void* screen_{nullptr};  // ncurses' SCREEN
    bool has_unicode_{false};
};

}  // namespace bore::ctl
