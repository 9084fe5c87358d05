// The service behind a tunnel: its name, the addresses the name had lately, and connecting to it. A
// visitor does not wait for a name lookup: addresses are cached and refreshed behind its back. One
// per tunnel; control thread only.
#pragma once

#include <cstdint>
#include <string>

#include "controlplane/client/dial.hpp"
#include "dataplane/base/clock.hpp"

namespace bore::client {

class LocalService {
  public:
    LocalService(asio::any_io_executor executor, std::string host, std::uint16_t port);

    // "localhost:3000", "[::1]:3000"
    [[nodiscard]] const std::string& name() const { return name_; }

    // Looks the name up in the background, at most once at a time.
    void refresh();

    // Begins to connect to the address that worked last; a closed socket when none is known.
    [[nodiscard]] tcp::socket begin();

    // Finishes what begin() began and tries the other addresses. On success `socket` is connected.
    // The caller sets `*abandoned` and closes the socket to end it early.
    [[nodiscard]] asio::awaitable<error_code> finish(tcp::socket& socket, const bool* abandoned);

  private:
    [[nodiscard]] asio::awaitable<void> look_up();
    [[nodiscard]] bool is_stale(base::Nanoseconds age) const;

    asio::any_io_executor executor_;
    std::string host_;
    std::uint16_t port_;
    std::string name_;
    bool is_literal_;
    Endpoints endpoints_;
    std::size_t preferred_index_{0};
    error_code lookup_error_{};
    base::Nanoseconds looked_up_at_{0};
    bool looking_up_{false};
};

}  // namespace bore::client
