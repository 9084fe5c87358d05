// Which relays this machine has, and which of them is meant. A relay shows itself by its statistics
// segment, by its control socket, or by both; the server id joins them.
#pragma once

#include <expected>
#include <string>
#include <vector>

#include "controlplane/config/load.hpp"
#include "dataplane/abi/segment_reader.hpp"

namespace bore::ctl {

struct Relay {
    std::string id;
    std::string segment;  // path; empty: none found
    std::string socket;   // path; empty: none found
    bool alive{false};    // its process runs, as far as the segment or the socket tells
    // The segment of a relay that was named by its path is read whoever owns it.
    abi::Owners owners{abi::Owners::relays};
};

// Where to look.
struct Places {
    std::string segments;              // folder
    std::vector<std::string> sockets;  // folders
};
[[nodiscard]] Places places_of_machine(const config::Environment& environment);

// Sorted by id.
[[nodiscard]] std::vector<Relay> list_relays(const Places& places);

// `wanted` is a server id, the path of a segment or of a socket, or empty: the only relay that
// runs, or, when none does, the only one that has left something. The error is a sentence.
[[nodiscard]] std::expected<Relay, std::string> choose_relay(const Places& places,
                                                             const std::string& wanted);

// What the relay's configuration echo says of its control socket; empty: nothing, off or auto.
[[nodiscard]] std::string socket_of_configuration(const std::string& configuration);

}  // namespace bore::ctl
