// ETHTOOL_GSTRINGS, ETHTOOL_GFEATURES and ETHTOOL_SFEATURES through SIOCETHTOOL.
#include "drivers/kernel/ethernet_features.hpp"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

namespace bore::drivers {
namespace {

// `command` points to a struct of linux/ethtool.h, whose first word says which.
bool call(const std::string& interface_name, void* command) {
    const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket < 0) {
        return false;
    }
    ifreq request{};
    interface_name.copy(request.ifr_name, IFNAMSIZ - 1);
    request.ifr_data = static_cast<char*>(command);
    const bool done = ::ioctl(socket, SIOCETHTOOL, &request) >= 0;
    ::close(socket);
    return done;
}

// The structs end in an array of a length known at run time only, hence words of memory.
template <typename Header>
std::vector<std::uint32_t> room_for(std::size_t tail_bytes) {
    return std::vector<std::uint32_t>((sizeof(Header) + tail_bytes + 3) / 4);
}

std::size_t count_of_features(const std::string& interface_name) {
    auto memory = room_for<ethtool_sset_info>(sizeof(std::uint32_t));
    auto* info = reinterpret_cast<ethtool_sset_info*>(memory.data());
    info->cmd = ETHTOOL_GSSET_INFO;
    info->sset_mask = 1ULL << ETH_SS_FEATURES;
    return call(interface_name, info) && info->sset_mask != 0 ? info->data[0] : 0;
}

}  // namespace

EthernetFeatures::EthernetFeatures(std::string interface_name)
    : interface_name_(std::move(interface_name)) {
    const std::size_t count = count_of_features(interface_name_);
    auto memory = room_for<ethtool_gstrings>(count * ETH_GSTRING_LEN);
    auto* strings = reinterpret_cast<ethtool_gstrings*>(memory.data());
    strings->cmd = ETHTOOL_GSTRINGS;
    strings->string_set = ETH_SS_FEATURES;
    strings->len = static_cast<std::uint32_t>(count);
    if (count == 0 || !call(interface_name_, strings)) {
        return;
    }
    for (std::size_t index = 0; index < count; ++index) {
        const char* name = reinterpret_cast<const char*>(strings->data) + index * ETH_GSTRING_LEN;
        names_.emplace_back(name, ::strnlen(name, ETH_GSTRING_LEN));
    }
}

std::vector<std::uint32_t> EthernetFeatures::active_words() const {
    const std::size_t blocks = (names_.size() + 31) / 32;
    auto memory = room_for<ethtool_gfeatures>(blocks * sizeof(ethtool_get_features_block));
    auto* features = reinterpret_cast<ethtool_gfeatures*>(memory.data());
    features->cmd = ETHTOOL_GFEATURES;
    features->size = static_cast<std::uint32_t>(blocks);
    std::vector<std::uint32_t> active(blocks);
    if (blocks != 0 && call(interface_name_, features)) {
        for (std::size_t block = 0; block < blocks; ++block) {
            active[block] = features->features[block].active;
        }
    }
    return active;
}

bool EthernetFeatures::set(const std::vector<std::size_t>& features, bool on) const {
    const std::size_t blocks = (names_.size() + 31) / 32;
    auto memory = room_for<ethtool_sfeatures>(blocks * sizeof(ethtool_set_features_block));
    auto* change = reinterpret_cast<ethtool_sfeatures*>(memory.data());
    change->cmd = ETHTOOL_SFEATURES;
    change->size = static_cast<std::uint32_t>(blocks);
    for (const std::size_t index : features) {
        auto& block = change->features[index / 32];
        const std::uint32_t bit = 1U << (index % 32);
        block.valid |= bit;
        block.requested |= on ? bit : 0;
    }
    return call(interface_name_, change);
}

std::vector<std::string> EthernetFeatures::switch_off(const std::vector<std::string>& prefixes) {
    const auto active = active_words();
    std::vector<std::size_t> chosen;
    for (std::size_t index = 0; index < names_.size(); ++index) {
        const bool wanted = std::any_of(prefixes.begin(), prefixes.end(), [&](const auto& prefix) {
            return names_[index].starts_with(prefix);
        });
        if (wanted && (active[index / 32] >> (index % 32) & 1U) != 0) {
            chosen.push_back(index);
        }
    }
    // One by one: a feature that the driver has fixed makes the kernel refuse the whole set.
    std::vector<std::string> stayed;
    for (const std::size_t index : chosen) {
        set({index}, false);
        if (is_on(names_[index])) {
            stayed.push_back(names_[index]);
        } else {
            switched_off_.push_back(index);
        }
    }
    return stayed;
}

void EthernetFeatures::restore() {
    for (const std::size_t index : switched_off_) {
        set({index}, true);
    }
    switched_off_.clear();
}

bool EthernetFeatures::is_on(std::string_view feature) const {
    const auto found = std::find(names_.begin(), names_.end(), feature);
    if (found == names_.end()) {
        return false;
    }
    const auto index = static_cast<std::size_t>(found - names_.begin());
    return (active_words()[index / 32] >> (index % 32) & 1U) != 0;
}

}  // namespace bore::drivers
