// Datagrams to the notify socket.
#include "controlplane/relay/service_manager.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace bore::relay {

namespace {

std::optional<std::uint64_t> number_of(const char* name) {
    const char* text = std::getenv(name);
    if (text == nullptr) {
        return std::nullopt;
    }
    std::uint64_t value = 0;
    const char* const end = text + std::strlen(text);
    const auto [parsed_to, error] = std::from_chars(text, end, value);
    return error == std::errc() && parsed_to == end ? std::optional(value) : std::nullopt;
}

}  // namespace

ServiceManager::ServiceManager() {
    const char* name = std::getenv("NOTIFY_SOCKET");
    sockaddr_un address{};
    if (name == nullptr || (name[0] != '/' && name[0] != '@') ||
        std::strlen(name) >= sizeof address.sun_path) {
        return;
    }
    address_ = name;
    if (address_[0] == '@') {
        address_[0] = '\0';
    }
    socket_ = Descriptor(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto timeout_us = number_of("WATCHDOG_USEC");
    const auto process = number_of("WATCHDOG_PID");
    if (timeout_us && *timeout_us > 0 &&
        (!process || *process == static_cast<std::uint64_t>(::getpid()))) {
        watchdog_timeout_ = *timeout_us * base::microsecond_ns;
    }
}

void ServiceManager::ready(std::string_view status) {
    send("READY=1\nSTATUS=" + std::string(status));
}

void ServiceManager::reloading() {
    // Type=notify-reload wants to know when the reload began.
    send("RELOADING=1\nMONOTONIC_USEC=" +
         std::to_string(base::monotonic_now() / base::microsecond_ns));
}

void ServiceManager::stopping() {
    send("STOPPING=1\nSTATUS=draining");
}

void ServiceManager::alive() {
    send("WATCHDOG=1");
}

void ServiceManager::send(std::string_view state) const {
    if (!socket_) {
        return;
    }
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, address_.data(), address_.size());
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size());
    // Lost datagrams cannot be helped from here; the manager has its own timeouts.
    (void)::sendto(socket_.get(), state.data(), state.size(), MSG_NOSIGNAL,
                   reinterpret_cast<const sockaddr*>(&address), length);
}

}  // namespace bore::relay
