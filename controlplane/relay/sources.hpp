// Limits before state: what one source address may do on the control port. Asked once per accepted
// connection, before anything is allocated for it; O(1). An IPv4 address is a source, an IPv6 /64
// is one, because whoever has one IPv6 address has 2^64. No sockets, no clock.
//
// A client whose visitors wait dials in once for each of them. These connections are as welcome as
// its visitors were, so visitors that wait on tunnels from a source raise all of its allowances by
// their number, and a connection that claims one gives its handshake token back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <unordered_map>
#include <utility>

#include <boost/intrusive/list.hpp>

#include "controlplane/config/address_list.hpp"
#include "controlplane/config/server_config.hpp"
#include "dataplane/base/clock.hpp"

namespace bore::relay {

struct Source : boost::intrusive::list_base_hook<> {
    std::uint32_t unauthenticated_count{0};  // connections whose handshake is under way
    std::uint32_t tunnel_count{0};
    std::uint32_t pending_count{0};  // visitors that wait on its tunnels
    std::uint32_t reference_count{0};
    // Token bucket in the form of GCRA: the time at which the bucket is full again.
    base::Nanoseconds full_at{0};
    base::Nanoseconds idle_since{0};
    config::IpAddress key;
};

class Sources;

// Keeps a source in the table.
class SourceHold {
  public:
    SourceHold() = default;
    SourceHold(Sources& sources, Source& source);
    SourceHold(const SourceHold& other);
    SourceHold(SourceHold&& other) noexcept
        : sources_(other.sources_), source_(std::exchange(other.source_, nullptr)) {}
    SourceHold& operator=(SourceHold other) noexcept {
        std::swap(sources_, other.sources_);
        std::swap(source_, other.source_);
        return *this;
    }
    ~SourceHold();

    [[nodiscard]] Source* operator->() const { return source_; }
    [[nodiscard]] Source& operator*() const { return *source_; }

  private:
    Sources* sources_{nullptr};
    Source* source_{nullptr};
};

class Sources {
  public:
    enum class Refusal : std::uint8_t { rate, cap };

    // Sources remembered at once, about 150 bytes each. Those that hold nothing are forgotten two
    // seconds after their last connection, or earlier when the table is full.
    static constexpr std::size_t default_capacity = 65'536;

    // `limits` is read at every call, so a reload takes effect at once.
    explicit Sources(const config::ServerConfig& limits, std::size_t capacity = default_capacity)
        : limits_(limits), capacity_(capacity) {}
    Sources(const Sources&) = delete;
    Sources& operator=(const Sources&) = delete;
    ~Sources();

    // A connection from `peer` was accepted. Admitted, it counts as unauthenticated until settle().
    [[nodiscard]] std::expected<SourceHold, Refusal> admit(const config::IpAddress& peer,
                                                           base::Nanoseconds now);
    void settle(Source& source);
    // It turned out to claim a visitor that waits: its token goes back.
    void refund(Source& source);

    void add_pending(Source& source);
    void remove_pending(Source& source);

    [[nodiscard]] std::uint32_t unauthenticated_count() const { return unauthenticated_count_; }
    [[nodiscard]] std::size_t size() const { return table_.size(); }

  private:
    friend class SourceHold;
    struct Hash {
        std::size_t operator()(const config::IpAddress& address) const noexcept;
    };

    [[nodiscard]] Source* find_or_make(const config::IpAddress& peer, base::Nanoseconds now);
    [[nodiscard]] bool charge(Source& source, base::Nanoseconds now) const;
    [[nodiscard]] bool within_caps(const Source& source) const;
    [[nodiscard]] base::Nanoseconds token_ns() const;
    void released(Source& source);
    void forget(Source& source);

    const config::ServerConfig& limits_;
    std::size_t capacity_;
    std::uint32_t unauthenticated_count_{0};
    std::uint32_t unauthenticated_source_count_{0};  // sources that hold one at least
    std::uint32_t pending_count_{0};
    base::Nanoseconds now_{0};  // of the latest admit(); good enough to age idle sources
    std::unordered_map<config::IpAddress, Source, Hash> table_;
    boost::intrusive::list<Source> idle_;  // oldest in front
};

}  // namespace bore::relay
