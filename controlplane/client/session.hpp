// What all tunnels of a process share: the configuration, the engine, the outputs, and the few
// times that tests shorten. Values and references only. Made by Client.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <string_view>

#include "controlplane/config/client_config.hpp"
#include "dataplane/abi/engine.hpp"

namespace bore::client {

struct Timing {
    std::chrono::milliseconds connect_timeout{5'000};   // per address of the relay
    std::chrono::milliseconds reply_timeout{10'000};    // whole handshake of a control connection
    std::chrono::milliseconds visitor_timeout{10'000};  // the relay drops an unclaimed one then
    std::chrono::milliseconds lingering{1'000};  // after our FIN, for what the visitor still sends
    std::chrono::milliseconds backoff_first{500};
    std::chrono::milliseconds backoff_greatest{15'000};
    std::chrono::milliseconds silence_limit{10'000};  // of a relay whose heartbeat was regular
    // A tunnel that lived so long starts its back-off anew.
    std::chrono::milliseconds stable_after{10'000};
    // How long to ask for the earlier port when the user asked for none. Relays free the port of a
    // client that vanished within 15 s.
    std::chrono::milliseconds port_patience{60'000};
    std::chrono::milliseconds drain{5'000};  // running pairs after the first signal
};

struct Session {
    boost::asio::io_context& io;
    const config::ClientConfig& config;
    abi::Engine& engine;
    // One line on standard output, without its end.
    std::function<void(std::string_view)> announce;
    std::size_t max_pairs;  // opening and live, as the limit of descriptors allows
    Timing timing{};
};

}  // namespace bore::client
