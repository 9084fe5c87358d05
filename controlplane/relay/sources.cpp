// Token buckets, caps and the table of sources.
#include "controlplane/relay/sources.hpp"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "dataplane/base/check.hpp"

namespace bore::relay {

namespace {

constexpr base::Nanoseconds forget_after_ns = 2 * base::second_ns;

config::IpAddress source_key(const config::IpAddress& peer) {
    config::IpAddress key = peer;
    if (!peer.is_v4()) {
        std::fill(key.bytes.begin() + 8, key.bytes.end(), std::uint8_t{0});
    }
    return key;
}

// Peers choose their addresses; a secret multiplier keeps them from choosing their bucket, too.
std::uint64_t hash_secret() {
    static const std::uint64_t secret = [] {
        std::uint64_t value = 0;
        BORE_CHECK(::getrandom(&value, sizeof value, 0) == sizeof value, "getrandom failed");
        return value | 1U;
    }();
    return secret;
}

}  // namespace

SourceHold::SourceHold(Sources& sources, Source& source) : sources_(&sources), source_(&source) {
    ++source.reference_count;
}

SourceHold::SourceHold(const SourceHold& other) : sources_(other.sources_), source_(other.source_) {
    if (source_ != nullptr) {
        ++source_->reference_count;
    }
}

SourceHold::~SourceHold() {
    if (source_ != nullptr && --source_->reference_count == 0) {
        sources_->released(*source_);
    }
}

std::size_t Sources::Hash::operator()(const config::IpAddress& address) const noexcept {
    std::array<std::uint64_t, 2> halves{};
    std::memcpy(halves.data(), address.bytes.data(), sizeof halves);
    std::uint64_t value = (halves[0] ^ hash_secret()) * 0x9e3779b97f4a7c15U;
    value = (value ^ (value >> 32U) ^ halves[1]) * hash_secret();
    return value ^ (value >> 29U);
}

Sources::~Sources() {
    idle_.clear();
}

std::expected<SourceHold, Sources::Refusal> Sources::admit(const config::IpAddress& peer,
                                                           base::Nanoseconds now) {
    now_ = now;
    Source* source = find_or_make(source_key(peer), now);
    if (source == nullptr) {
        return std::unexpected(Refusal::cap);
    }
    SourceHold hold(*this, *source);
    if (!within_caps(*source)) {
        return std::unexpected(Refusal::cap);
    }
    if (!charge(*source, now)) {
        return std::unexpected(Refusal::rate);
    }
    unauthenticated_source_count_ += source->unauthenticated_count++ == 0 ? 1U : 0U;
    ++unauthenticated_count_;
    return hold;
}

bool Sources::within_caps(const Source& source) const {
    if (source.unauthenticated_count >=
        std::uint64_t{limits_.max_unauthenticated_per_source} + source.pending_count) {
        return false;
    }
    const std::uint64_t cap = std::uint64_t{limits_.max_unauthenticated} + pending_count_;
    if (unauthenticated_count_ < cap) {
        return true;
    }
    // At the cap the sources that hold the most are refused first: an eighth more is for those
    // below the average.
    const std::uint64_t holders = unauthenticated_source_count_ + 1;
    return unauthenticated_count_ < cap + cap / 8 &&
           source.unauthenticated_count * holders < unauthenticated_count_;
}

base::Nanoseconds Sources::token_ns() const {
    return base::second_ns / limits_.handshake_rate_per_source;
}

bool Sources::charge(Source& source, base::Nanoseconds now) const {
    if (limits_.handshake_rate_per_source == 0) {
        return true;
    }
    const std::uint64_t burst =
        std::uint64_t{limits_.handshake_rate_per_source} + source.pending_count;
    // A debt made while visitors waited does not outlive them: no more than the present burst.
    const base::Nanoseconds latest = now + burst * token_ns();
    source.full_at = std::clamp(source.full_at, now, latest);
    if (source.full_at + token_ns() > latest) {
        return false;
    }
    source.full_at += token_ns();
    return true;
}

void Sources::refund(Source& source) {
    if (limits_.handshake_rate_per_source != 0 && source.full_at >= token_ns()) {
        source.full_at -= token_ns();
    }
}

void Sources::settle(Source& source) {
    BORE_CHECK(source.unauthenticated_count > 0, "a connection was settled twice");
    unauthenticated_source_count_ -= --source.unauthenticated_count == 0 ? 1U : 0U;
    --unauthenticated_count_;
}

void Sources::add_pending(Source& source) {
    ++source.pending_count;
    ++pending_count_;
}

void Sources::remove_pending(Source& source) {
    --source.pending_count;
    --pending_count_;
}

Source* Sources::find_or_make(const config::IpAddress& key, base::Nanoseconds now) {
    if (const auto found = table_.find(key); found != table_.end()) {
        if (found->second.is_linked()) {
            idle_.erase(idle_.iterator_to(found->second));
        }
        return &found->second;
    }
    // Each new source pays for forgetting up to two old ones, so the table shrinks by itself.
    for (int i = 0; i < 2 && !idle_.empty() && idle_.front().idle_since + forget_after_ns <= now;
         ++i) {
        forget(idle_.front());
    }
    if (table_.size() >= capacity_) {
        if (idle_.empty()) {
            return nullptr;
        }
        forget(idle_.front());
    }
    Source& source = table_[key];
    source.key = key;
    return &source;
}

void Sources::released(Source& source) {
    source.idle_since = now_;
    idle_.push_back(source);
}

void Sources::forget(Source& source) {
    idle_.erase(idle_.iterator_to(source));
    table_.erase(config::IpAddress(source.key));
}

}  // namespace bore::relay
