// Names of the reasons for which a pair ends, or runs on the stream engine.
#include "dataplane/abi/engine.hpp"

#include <array>

#include "dataplane/abi/packet_counters.hpp"

namespace bore::abi {

std::string_view to_string(EndReason reason) {
    static constexpr std::array names{
#define BORE_NAME(name, help) std::string_view{#name},
        BORE_END_REASONS(BORE_NAME)
#undef BORE_NAME
    };
    const auto index = static_cast<std::size_t>(reason);
    return index < names.size() ? names[index] : std::string_view{"unknown"};
}

std::string_view to_string(StreamReason reason) {
    static constexpr std::array names{
#define BORE_NAME(name, help) std::string_view{#name},
        BORE_STREAM_REASONS(BORE_NAME)
#undef BORE_NAME
    };
    const auto index = static_cast<std::size_t>(reason);
    return index < names.size() ? names[index] : std::string_view{"unknown"};
}

}  // namespace bore::abi
