// Offloads of a network interface by the names that the kernel gives them (what `ethtool -k --show`
// abbreviates): read, switched off, put back.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bore::drivers {

class EthernetFeatures {
  public:
    explicit EthernetFeatures(std::string interface_name);

    // Switches off those features that are on and whose name begins with one of `prefixes`. Returns
    // those that are still on, because the driver does not allow it.
    [[nodiscard]] std::vector<std::string> switch_off(const std::vector<std::string>& prefixes);
    // Switches on what switch_off() switched off.
    void restore();
    [[nodiscard]] bool is_on(std::string_view feature) const;

  private:
    // Both do nothing where the interface has no such call.
    [[nodiscard]] std::vector<std::uint32_t> active_words() const;
    bool set(const std::vector<std::size_t>& features, bool on) const;

    std::string interface_name_;
    std::vector<std::string> names_;         // by index of the feature's bit
    std::vector<std::size_t> switched_off_;  // indices
};

}  // namespace bore::drivers
