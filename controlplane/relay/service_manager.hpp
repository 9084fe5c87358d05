// Speaks to systemd, or whoever set NOTIFY_SOCKET: one datagram per state (sd_notify(3)). Does
// nothing where nobody listens.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "controlplane/relay/descriptor.hpp"
#include "dataplane/base/clock.hpp"

namespace bore::relay {

class ServiceManager {
  public:
    // Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
    ServiceManager();

    void ready(std::string_view status);
    void reloading();
    void stopping();
    void alive();

    // How often alive() is expected; nothing when no watchdog runs.
    [[nodiscard]] std::optional<base::Nanoseconds> watchdog_timeout() const {
        return watchdog_timeout_;
    }

  private:
    void send(std::string_view state) const;

    Descriptor socket_;
    std::string address_;  // a path, or an abstract name with a NUL in front
    std::optional<base::Nanoseconds> watchdog_timeout_;
};

}  // namespace bore::relay
