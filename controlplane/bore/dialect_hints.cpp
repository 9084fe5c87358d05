// See dialect_hints.hpp.
#include "controlplane/bore/dialect_hints.hpp"

#include <algorithm>
#include <string_view>

#include "dataplane/base/check.hpp"

namespace bore::protocol {

std::size_t DialectHints::Hash::operator()(const SourceAddress& source) const noexcept {
    std::array<char, sizeof(SourceAddress)> text;
    std::ranges::transform(source, text.begin(),
                           [](std::uint8_t byte) { return static_cast<char>(byte); });
    return std::hash<std::string_view>{}({text.data(), text.size()});
}

bool DialectHints::known(const Knowledge& knowledge, base::Nanoseconds now) {
    return knowledge.live_tunnel_count > 0 || knowledge.known_until > now;
}

DialectHint DialectHints::hint(const SourceAddress& source, base::Nanoseconds now) const {
    const auto found = entries_.find(source);
    if (found == entries_.end()) {
        return DialectHint::unknown;
    }
    const auto& by_dialect = found->second.by_dialect;
    if (known(by_dialect[static_cast<std::size_t>(Dialect::fork)], now)) {
        return DialectHint::any_fork;
    }
    return known(by_dialect[static_cast<std::size_t>(Dialect::upstream)], now)
               ? DialectHint::only_upstream
               : DialectHint::unknown;
}

void DialectHints::tunnel_opened(const SourceAddress& source, Dialect dialect) {
    ++entries_[source].by_dialect[static_cast<std::size_t>(dialect)].live_tunnel_count;
}

void DialectHints::tunnel_closed(const SourceAddress& source, Dialect dialect,
                                 base::Nanoseconds now) {
    const auto found = entries_.find(source);
    BORE_CHECK(found != entries_.end(), "a tunnel closed that the hint table does not know");
    Knowledge& knowledge = found->second.by_dialect[static_cast<std::size_t>(dialect)];
    BORE_CHECK(knowledge.live_tunnel_count > 0, "a tunnel closed twice in the hint table");
    --knowledge.live_tunnel_count;
    knowledge.known_until = now + keep_ns;
    forget_expired(now);
}

void DialectHints::seen(const SourceAddress& source, Dialect dialect, base::Nanoseconds now) {
    auto found = entries_.find(source);
    if (found == entries_.end()) {
        forget_expired(now);
        if (entries_.size() >= capacity_) {
            return;
        }
        found = entries_.try_emplace(source).first;
    }
    found->second.by_dialect[static_cast<std::size_t>(dialect)].known_until = now + keep_ns;
}

// At most once a second: a sweep over 65,536 entries takes about a millisecond.
void DialectHints::forget_expired(base::Nanoseconds now) {
    if (now < next_sweep_) {
        return;
    }
    next_sweep_ = now + base::second_ns;
    std::erase_if(entries_, [now](const auto& entry) {
        return std::ranges::none_of(entry.second.by_dialect, [now](const Knowledge& knowledge) {
            return known(knowledge, now);
        });
    });
}

}  // namespace bore::protocol
