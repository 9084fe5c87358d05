// Which dialects are spoken behind which source address, learned from completed handshakes
// (wire-protocol §8.1). A relay with a secret asks it at every accept: a wrong guess costs an
// upstream client some latency, or a fork client one reset visitor. Owned by the relay's control
// thread; time comes in as an argument.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "controlplane/bore/dialect.hpp"
#include "dataplane/base/clock.hpp"

namespace bore::protocol {

class DialectHints {
  public:
    // IPv6, or IPv4 mapped into it (::ffff:a.b.c.d).
    using SourceAddress = std::array<std::uint8_t, 16>;

    // An entry lives while tunnels of its address live, and this much longer.
    static constexpr base::Nanoseconds keep_ns = 60 * base::second_ns;

    // At most `capacity` entries without a live tunnel are kept (a source without one is unknown
    // then, which costs one grace period); entries with tunnels are bounded by the tunnels.
    explicit DialectHints(std::size_t capacity = 65'536) : capacity_(capacity) {}

    [[nodiscard]] DialectHint hint(const SourceAddress& source, base::Nanoseconds now) const;

    // One call each per tunnel, with the dialect that Step::learned gave; nothing learned, no call.
    void tunnel_opened(const SourceAddress& source, Dialect dialect);
    void tunnel_closed(const SourceAddress& source, Dialect dialect, base::Nanoseconds now);

    // A data connection showed its dialect, perhaps from another address than its tunnel. Call it
    // when the id it named was a pending visitor: strangers shall not fill the table.
    void seen(const SourceAddress& source, Dialect dialect, base::Nanoseconds now);

    [[nodiscard]] std::size_t entry_count() const { return entries_.size(); }

  private:
    struct Knowledge {
        std::uint32_t live_tunnel_count = 0;
        base::Nanoseconds known_until = 0;
    };
    struct Entry {
        std::array<Knowledge, 2> by_dialect;
    };
    struct Hash {
        std::size_t operator()(const SourceAddress& source) const noexcept;
    };

    [[nodiscard]] static bool known(const Knowledge& knowledge, base::Nanoseconds now);
    void forget_expired(base::Nanoseconds now);

    std::size_t capacity_;
    base::Nanoseconds next_sweep_ = 0;
    std::unordered_map<SourceAddress, Entry, Hash> entries_;
};

}  // namespace bore::protocol
