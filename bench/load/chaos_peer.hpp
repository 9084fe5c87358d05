// A visitor that misbehaves: one short life after the other, each of a kind. What the target does
// to it is not judged; it may well be cut. Used by chaos.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "bench/load/event_loop.hpp"
#include "bench/load/payload.hpp"
#include "bench/load/run.hpp"

namespace bore::bench {

enum class ChaosKind : std::uint8_t {
    silent,         // connects and says nothing
    half_opening,   // half of the first message, then a reset
    fin_first,      // FIN before any byte
    reset_down,     // a reset in the middle of a download
    reset_up,       // a reset in the middle of an upload
    abrupt_close,   // closes with unread bytes in the middle of both directions
    short_upload,   // FIN after half of what was announced
    slow_reader,    // a few kilobytes at a time, then gone
    deaf,           // asks for an endless download and never reads
    connect_reset,  // a reset right behind the handshake
};
inline constexpr std::size_t chaos_kind_count = 10;

[[nodiscard]] const std::vector<std::string>& chaos_kinds();  // their names, in this order

class ChaosPeer final : public Handler {
  public:
    // Called when a life is over.
    using OnEnd = std::function<void(ChaosPeer&)>;

    ChaosPeer(Part& part, OnEnd on_end) : part_(part), on_end_(std::move(on_end)) {}

    // A life of the given length, if the target lets it.
    void live(ChaosKind kind, base::Nanoseconds length);
    void leave();

    [[nodiscard]] ChaosKind kind() const { return kind_; }
    [[nodiscard]] bool was_connected() const { return was_connected_; }

    void on_ready(std::uint32_t events) override;

  private:
    void on_connected();
    void work();
    void read_a_little(std::uint64_t life);

    Part& part_;
    OnEnd on_end_;
    ChaosKind kind_ = ChaosKind::silent;
    Descriptor connection_;
    PatternSender sender_;
    PatternReceiver receiver_;
    std::uint64_t life_ = 0;  // a timer of an earlier one finds another number
    bool was_connected_ = false;
};

}  // namespace bore::bench
