// What went wrong, in words for the person at the keyboard: the value, what happened to it, what to
// do. Pure functions from values to text; what the handshake says is
// kept word for word, because scripts look for it. Called by Tunnel and Visitors.
#pragma once

#include <boost/system/error_code.hpp>
#include <cstdint>
#include <string>
#include <string_view>

#include "controlplane/bore/client_handshake.hpp"

namespace bore::client {

// "host:port"; IPv6 addresses get brackets.
[[nodiscard]] std::string host_and_port(std::string_view host, std::uint16_t port);

[[nodiscard]] std::string explain_unresolved(std::string_view relay_host,
                                             const boost::system::error_code& error);
// `relay` is host_and_port(); `address` the last address tried.
[[nodiscard]] std::string explain_unreachable(std::string_view relay, std::string_view address,
                                              const boost::system::error_code& error);
[[nodiscard]] std::string explain_local_down(std::string_view service,
                                             const boost::system::error_code& error);

// A handshake that ended with ClientStep::failed; `port` is the public port asked for.
[[nodiscard]] std::string explain_handshake(std::string_view relay,
                                            const protocol::ClientStep& failed,
                                            const protocol::ClientOptions& options,
                                            std::uint16_t port);

// For a peer whose first bytes are of another protocol; empty when they are not recognized.
[[nodiscard]] std::string explain_foreign_peer(std::string_view relay,
                                               std::string_view first_bytes);

}  // namespace bore::client
