// Looking into the folders, and choosing.
#include "controlplane/ctl/relays.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <system_error>

#include "controlplane/command/socket_path.hpp"
#include "controlplane/ctl/control_client.hpp"

namespace bore::ctl {

namespace {

constexpr std::string_view socket_suffix = ".sock";

bool is_socket(const std::string& path) {
    struct stat status{};
    return ::stat(path.c_str(), &status) == 0 && S_ISSOCK(status.st_mode);
}

std::string name_of(const std::string& path) {
    return path.substr(path.rfind('/') + 1);
}

void read_segment(Relay& relay) {
    const auto snapshot = abi::SegmentReader(relay.segment, relay.owners).read();
    if (!snapshot) {
        return;  // whoever reads it later hears why
    }
    relay.alive = snapshot->writer_alive;
    const std::string echoed = socket_of_configuration(snapshot->configuration);
    if (!echoed.empty() && is_socket(echoed)) {
        relay.socket = echoed;
    }
}

// A file of that name which is no relay's: whoever reads it hears whose it is.
std::optional<Relay> stranger_of(const Places& places, const std::string& id) {
    Relay relay;
    relay.id = id;
    relay.segment = places.segments + "/" + std::string(abi::segment_prefix) + id;
    const auto read = abi::SegmentReader(relay.segment, relay.owners).read();
    return !read && read.error().kind == abi::SegmentError::Kind::stranger ? std::optional(relay)
                                                                           : std::nullopt;
}

std::string names_of(const std::vector<Relay>& relays) {
    std::string text;
    for (const Relay& relay : relays) {
        text += (text.empty() ? "" : ", ") + relay.id + (relay.alive ? "" : " (dead)");
    }
    return text;
}

}  // namespace

Places places_of_machine(const config::Environment& environment) {
    return {.segments = std::string(abi::segment_directory),
            .sockets = command::socket_folders(environment)};
}

std::vector<Relay> list_relays(const Places& places) {
    std::map<std::string, Relay> relays;
    for (const std::string& path : abi::list_segments(places.segments).paths) {
        const std::string id = name_of(path).substr(abi::segment_prefix.size());
        Relay& relay = relays[id];
        relay.id = id;
        relay.segment = path;
        read_segment(relay);
    }
    for (const std::string& folder : places.sockets) {
        // A folder that is not there, or goes away meanwhile, has no sockets.
        std::error_code error;
        const std::filesystem::directory_iterator end;
        for (std::filesystem::directory_iterator entry(folder, error); !error && entry != end;
             entry.increment(error)) {
            const std::string path = entry->path().string();
            if (!path.ends_with(socket_suffix) || !is_socket(path)) {
                continue;
            }
            const std::string file = name_of(path);
            const std::string id = file.substr(0, file.size() - socket_suffix.size());
            Relay& relay = relays[id];
            relay.id = id;
            if (relay.socket.empty()) {
                relay.socket = path;
                relay.alive = relay.alive || answers(path);
            }
        }
    }
    std::vector<Relay> list;
    for (auto& [id, relay] : relays) {
        // A socket that nobody answers, and nothing else: a killed relay's.
        if (relay.alive || !relay.segment.empty()) {
            list.push_back(std::move(relay));
        }
    }
    return list;
}

std::expected<Relay, std::string> choose_relay(const Places& places, const std::string& wanted) {
    if (wanted.find('/') != std::string::npos) {
        Relay relay;
        relay.id = name_of(wanted);
        relay.alive = true;
        relay.owners = abi::Owners::anybody;
        if (is_socket(wanted)) {
            relay.socket = wanted;
        } else {
            relay.segment = wanted;
            read_segment(relay);
        }
        return relay;
    }
    std::vector<Relay> relays = list_relays(places);
    if (!wanted.empty()) {
        const auto found = std::find_if(relays.begin(), relays.end(),
                                        [&](const Relay& relay) { return relay.id == wanted; });
        if (found != relays.end()) {
            return *found;
        }
        if (auto stranger = stranger_of(places, wanted)) {
            return *stranger;
        }
        return std::unexpected("--relay " + wanted + ": no relay of this server id is on this " +
                               "machine; " +
                               (relays.empty() ? "there is none at all: start bore-server"
                                               : "there are " + names_of(relays)));
    }
    if (relays.empty()) {
        const std::size_t strangers = abi::list_segments(places.segments).stranger_count;
        return std::unexpected(
            "no relay runs on this machine: no statistics in " + places.segments +
            (strangers == 0 ? ""
                            : " but " + std::to_string(strangers) +
                                  " files of users who are neither root nor bore nor you") +
            " and no control socket; start bore-server, or name a file by --relay PATH");
    }
    std::vector<Relay> alive;
    std::copy_if(relays.begin(), relays.end(), std::back_inserter(alive),
                 [](const Relay& relay) { return relay.alive; });
    const std::vector<Relay>& candidates = alive.empty() ? relays : alive;
    if (candidates.size() > 1) {
        return std::unexpected("several relays are on this machine: " + names_of(candidates) +
                               "; name one by --relay ID");
    }
    return candidates.front();
}

std::string socket_of_configuration(const std::string& configuration) {
    constexpr std::string_view key = "control_socket = \"";
    std::size_t begin = 0;
    while (begin < configuration.size()) {
        const std::size_t end = std::min(configuration.find('\n', begin), configuration.size());
        const std::string_view line(configuration.data() + begin, end - begin);
        if (line.starts_with(key)) {
            const std::string_view value = line.substr(key.size());
            const std::string path(value.substr(0, value.find('"')));
            return path.starts_with('/') ? path : "";
        }
        begin = end + 1;
    }
    return "";
}

}  // namespace bore::ctl
