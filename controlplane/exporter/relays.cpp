// One refresh: 1. which segments there are, 2. each is read, 3. what was read goes to its accounts.
#include "controlplane/exporter/relays.hpp"

#include <spdlog/spdlog.h>

#include <toml++/toml.h>
#include <algorithm>
#include <filesystem>
#include <functional>

#include "controlplane/config/key.hpp"

namespace bore::exporter {
namespace {

constexpr std::uint64_t bytes_per_megabit = 125'000;

// Of a relay named by its server id the segment must be a relay's; a path is the operator's word.
abi::SegmentReader reader_of(const std::string& relay, const config::ExporterConfig& config) {
    return relay.find('/') != std::string::npos
               ? abi::SegmentReader(relay, abi::Owners::anybody)
               : abi::SegmentReader(
                     config.segment_directory + "/" + std::string(abi::segment_prefix) + relay,
                     abi::Owners::relays);
}

// The file's name without its prefix: known also while the file cannot be read.
std::string name_of(const std::string& path) {
    std::string name = std::filesystem::path(path).filename();
    if (name.starts_with(abi::segment_prefix)) {
        name.erase(0, abi::segment_prefix.size());
    }
    return config::printable(name);
}

std::string why_not_up(const abi::Snapshot& snapshot) {
    if (!snapshot.writer_alive) {
        return "the relay has ended without removing its statistics (killed, or crashed)";
    }
    if (snapshot.stale_since) {
        return "the relay's control loop stands still for " +
               std::to_string(snapshot.stale_for_ns() / base::second_ns) + " s";
    }
    return "";
}

}  // namespace

std::uint64_t max_tunnels_in(const std::string& configuration) {
    try {
        const toml::table table = toml::parse(configuration);
        const auto most = table["max_tunnels"].value_or(std::int64_t{0});
        return most > 0 ? static_cast<std::uint64_t>(most) : 0;
    } catch (const toml::parse_error&) {
        return 0;  // a damaged or cut text
    }
}

Relays::Relay::Relay(abi::SegmentReader reader_of_it, const config::ExporterConfig& config,
                     base::Nanoseconds watching_since)
    : name(name_of(reader_of_it.path())),
      reader(std::move(reader_of_it)),
      accounts(config.series.most, watching_since) {}

Relays::Relays(const config::ExporterConfig& config)
    : config_(config), watching_since_(base::monotonic_now()) {
    for (const std::string& relay : config.relays) {
        relays_.push_back(
            std::make_unique<Relay>(reader_of(relay, config), config, watching_since_));
    }
}

void Relays::refresh() {
    if (config_.relays.empty()) {
        follow_directory();
    }
    for (const std::unique_ptr<Relay>& relay : relays_) {
        read(*relay, std::uint64_t{config_.link_mbit} * bytes_per_megabit);
    }
}

void Relays::follow_directory() {
    const abi::SegmentList found = abi::list_segments(config_.segment_directory);
    std::erase_if(relays_, [&found](const std::unique_ptr<Relay>& relay) {
        const bool gone = !std::ranges::binary_search(found.paths, relay->reader.path());
        if (gone) {
            spdlog::info("relay {}: its segment is gone", relay->name);
        }
        return gone;
    });
    // Those that are followed stay; new ones are taken in the order of their names.
    for (const std::string& path : found.paths) {
        if (relays_.size() >= config_.max_relays) {
            break;
        }
        const auto known = std::ranges::find_if(
            relays_, [&path](const auto& relay) { return relay->reader.path() == path; });
        if (known == relays_.end()) {
            relays_.push_back(std::make_unique<Relay>(abi::SegmentReader(path, abi::Owners::relays),
                                                      config_, watching_since_));
            spdlog::info("relay {}: found {}", relays_.back()->name, config::printable(path));
        }
    }
    std::ranges::sort(relays_, {}, [](const auto& relay) { return relay->name; });
    note_left_out({.beyond_limit = found.paths.size() - relays_.size(),
                   .of_strangers = found.stranger_count});
}

// A sentence when it begins and none for each further file: anybody may make files there.
void Relays::note_left_out(const LeftOut& now) {
    const std::string& folder = config_.segment_directory;
    if (now.beyond_limit != 0 && left_out_.beyond_limit == 0) {
        spdlog::warn(
            "{} segments in {} are left out: max-relays = {}; raise it, name the relays by "
            "--relay, or remove what dead relays have left",
            now.beyond_limit, folder, config_.max_relays);
    }
    if (now.of_strangers != 0 && left_out_.of_strangers == 0) {
        spdlog::warn(
            "{} files in {} are named like segments and belong neither to root nor to bore nor to "
            "this user: left out; --relay PATH reads one all the same",
            now.of_strangers, folder);
    }
    left_out_ = now;
}

void Relays::read(Relay& relay, std::uint64_t link_bytes_per_second) {
    relay.snapshot.reset();  // before the next is read: two of them are megabytes
    auto snapshot = relay.reader.read();
    const std::string before = relay.reason;
    if (snapshot) {
        relay.reason = why_not_up(*snapshot);
        relay.snapshot = std::move(*snapshot);
        relay.accounts.update(*relay.snapshot);
        const std::uint64_t configuration = std::hash<std::string>{}(relay.snapshot->configuration);
        if (relay.limits_of != configuration) {
            relay.limits = {max_tunnels_in(relay.snapshot->configuration), link_bytes_per_second};
            relay.limits_of = configuration;
        }
    } else {
        relay.reason = config::printable(snapshot.error().text);
        ++relay.read_errors;
    }
    // A sentence for each change, not for each scrape; seconds in it change at every one.
    if (relay.reason.empty() != before.empty() || (!snapshot && relay.reason != before)) {
        if (relay.reason.empty()) {
            spdlog::info("relay {}: up", relay.name);
        } else {
            spdlog::warn("relay {}: {}", relay.name, relay.reason);
        }
    }
}

RelayView Relays::view(const Relay& relay) {
    return {.name = relay.name,
            .snapshot = relay.snapshot ? &*relay.snapshot : nullptr,
            .accounts = &relay.accounts,
            .limits = relay.limits,
            .read_errors = relay.read_errors};
}

std::vector<RelayView> Relays::views() const {
    std::vector<RelayView> views;
    for (const std::unique_ptr<Relay>& relay : relays_) {
        views.push_back(view(*relay));
    }
    return views;
}

std::vector<Relays::Health> Relays::health() const {
    std::vector<Health> result;
    for (const std::unique_ptr<Relay>& relay : relays_) {
        result.push_back({relay->name, relay->reason});
    }
    return result;
}

}  // namespace bore::exporter
