// The connections that the slow path follows before they are spliced (or because they never will
// be): where their frames come from, what is held of them, and the bounds on all that. Which frame
// is held or passed decides leg_path.*; this is the store.
//
// Bounds: max_legs connections; max_held_bytes over all of them for held frames, and once more for
// copies; max_held_bytes_per_leg, max_held_frames_per_leg and max_recent_bytes_per_leg for one.
// Nothing here is proportional to what a stranger sends.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "dataplane/packet/parse.hpp"
#include "dataplane/packet/slow_path_context.hpp"

namespace bore::packet {

// A copy of a frame from the wire.
struct HeldFrame {
    std::vector<std::byte> bytes;
    std::uint32_t sequence{0};
    std::uint32_t end_sequence{0};  // behind payload and FIN
    std::uint32_t timestamp{0};
    std::uint32_t worker_index{0};
    bool timestamped{false};
};

enum class LegPhase : std::uint8_t {
    pass,    // frames go to the kernel and come from it
    hold,    // payload and FIN of the peer are held, the rest goes to the kernel
    frozen,  // everything of the peer is held, everything of the kernel is dropped
};

struct Handoff;

struct Leg : SlowTimer {
    FlowKey key;
    std::uint32_t worker_index{0};
    std::uint8_t port_index{0};
    LegPhase phase{LegPhase::pass};
    bool answered{false};    // the kernel has sent a frame on this tuple
    bool overflowed{false};  // more came before pairing than may be held
    bool peer_finished{false};
    bool kernel_finished{false};
    bool ended{false};  // both FINs seen, or its pair's end: only late segments can come
    Handoff* handoff{nullptr};
    std::uint32_t pair_slot{no_pair};  // of a pair that the stream engine serves

    // How the peer is reached: from the kernel's frames to it, else the reverse of its own.
    Adjacency adjacency;

    // Where the connection's numbers began, when the kernel's SYN-ACK was seen.
    std::optional<SocketOrigin> origin;

    // Of the peer's frames.
    std::uint32_t first_sequence{0};
    std::uint32_t first_acknowledgement{0};
    std::uint32_t peer_timestamp{0};   // latest TSval
    std::uint32_t window_sequence{0};  // SND.WL1, SND.WL2 and the window of RFC 9293, 3.10.7.4
    std::uint32_t window_acknowledgement{0};
    std::uint16_t window{0};  // as in the segment, not scaled
    bool peer_timestamped{false};
    // Of the kernel's frames.
    bool own_timestamped{false};
    std::uint32_t own_timestamp{0};     // latest TSval
    std::uint32_t own_acknowledged{0};  // latest acknowledgement that reached the wire

    std::vector<HeldFrame> held;
    std::size_t held_bytes{0};
    // Payload given to the kernel that it has not acknowledged: it may never have arrived there.
    std::vector<HeldFrame> recent;
    std::size_t recent_bytes{0};

    // The kernel's acknowledgement of Accept waits for the splice, see leg_path.hpp.
    enum class AcknowledgementHold : std::uint8_t { not_yet, active, over };
    AcknowledgementHold acknowledgement_hold{AcknowledgementHold::not_yet};
    std::uint32_t accept_sequence{0};
    base::Nanoseconds accept_seen_at{0};
    std::vector<std::byte> held_acknowledgement;

    base::Nanoseconds hold_until{0};
    base::Nanoseconds last_seen{0};

    enum class List : std::uint8_t { none, unanswered, answered, ended, count };
    List list{List::none};
    Leg* newer{nullptr};
    Leg* older{nullptr};
};

class Legs {
  public:
    static constexpr std::size_t max_held_frames_per_leg = 1'024;
    // What a held frame costs beside its bytes, so that tiny frames are bounded as well.
    static constexpr std::size_t held_frame_overhead_bytes = 96;
    static constexpr std::size_t max_recent_bytes_per_leg = 65'536;
    // Ahead of what the kernel has acknowledged: it opens no larger window before a hand-off.
    static constexpr std::uint32_t max_ahead_bytes = 262'144;
    // The kernel acknowledges Accept at the latest so long after it came. The client's timer runs
    // out after its round trip + 200 ms (TCP_RTO_MIN of Linux), and its frame is half of one old.
    static constexpr base::Nanoseconds max_acknowledgement_hold_ns = 180 * base::millisecond_ns;
    // An unpaired connection without a frame for so long is forgotten.
    static constexpr base::Nanoseconds idle_limit_ns = 120 * base::second_ns;

    explicit Legs(SlowPathContext& context);
    ~Legs();
    Legs(const Legs&) = delete;
    Legs& operator=(const Legs&) = delete;

    [[nodiscard]] Leg* find(const FlowKey& key);
    // A new leg in PASS. `always`: even above max_legs, for connections of pairs, which the engine
    // bounds. Else the longest unheard one is evicted; nullptr when all belong to pairs.
    [[nodiscard]] Leg* track(const FlowKey& key, bool always);
    void forget(Leg& leg);  // what it holds is dropped
    void touch(Leg& leg);   // heard of now
    void end(Leg& leg);     // soon forgotten, first to be evicted

    // ---- Held frames
    // False when a bound is reached; a duplicate is dropped and counts as held.
    [[nodiscard]] bool hold(Leg& leg, std::span<const std::byte> frame, const TcpView& view,
                            std::uint32_t worker_index);
    void release(Leg& leg);  // to the kernel, in order; the leg passes from now on
    void drop_held(Leg& leg);
    void start_hold(Leg& leg);
    void freeze(Leg& leg) { leg.phase = LegPhase::frozen; }
    void unfreeze(Leg& leg) { leg.phase = LegPhase::hold; }

    // ---- Copies of what the kernel has not acknowledged
    void remember(Leg& leg, std::span<const std::byte> frame, const TcpView& view,
                  std::uint32_t worker_index);
    void forget_acknowledged(Leg& leg, std::uint32_t acknowledgement);
    void drop_recent(Leg& leg);

    // ---- The acknowledgement of Accept
    void start_acknowledgement_hold(Leg& leg, std::uint32_t accept_sequence);
    void end_acknowledgement_hold(Leg& leg);  // sends it

    // ---- Pairs on the stream engine
    void pin(Leg& leg, std::uint32_t pair_slot);
    void unpin(std::uint32_t pair_slot);

    // ---- Next hops learned from the kernel's frames, by peer; a cache without promises.
    void learn_neighbour(const FlowKey& key, const Adjacency& adjacency);
    [[nodiscard]] const Adjacency* neighbour(const FlowKey& key) const;
    // visit(peer's address, Adjacency&)
    void for_each_neighbour(const auto& visit) {
        for (Neighbour& entry : neighbours_) {
            visit(entry.peer_address, entry.adjacency);
        }
    }

    // ---- What the kernel's SYN-ACKs said, by connection; a cache without promises as well, so
    // that a flood of SYNs costs no memory.
    void learn_origin(const FlowKey& key, const SocketOrigin& origin);
    // For a leg that begins with the first segment of its peer, if it is still known. Before a
    // later one the kernel may have sent frames that nobody followed.
    void recall_origin(Leg& leg) const;

    void for_each(const auto& visit) {
        for (const auto& [key, leg] : by_key_) {
            visit(*leg);
        }
    }

    void on_timer(std::uint32_t leg_index);
    void sweep();
    [[nodiscard]] base::Nanoseconds next_sweep() const;
    [[nodiscard]] std::size_t count() const { return by_key_.size(); }

  private:
    // Strangers choose the tuples, so the hash is keyed.
    struct Hash {
        std::uint64_t key;
        std::size_t operator()(const FlowKey& flow_key) const;
    };
    struct Neighbour {
        std::array<std::uint8_t, 16> peer_address{};
        Adjacency adjacency;
    };
    struct Greeting {
        std::uint64_t key_digest{0};
        SocketOrigin origin;
    };
    static constexpr std::size_t neighbour_count = 256;
    // Connections whose SYN-ACK is on its way: 10,000 a second with round trips of 400 ms.
    static constexpr std::size_t greeting_count = 4'096;

    void arm(Leg& leg);
    [[nodiscard]] std::vector<HeldFrame> take_held(Leg& leg);
    void keep_copy(Leg& leg, HeldFrame&& copy);
    template <typename Which>
    void forget_recent(Leg& leg, const Which& which);
    void enlist(Leg& leg, Leg::List list);
    void delist(Leg& leg);
    [[nodiscard]] bool evict_one();
    [[nodiscard]] Leg*& oldest(Leg::List list) { return oldest_[static_cast<std::size_t>(list)]; }
    [[nodiscard]] Leg*& newest(Leg::List list) { return newest_[static_cast<std::size_t>(list)]; }
    [[nodiscard]] static Leg::List home_list(const Leg& leg);
    [[nodiscard]] std::size_t neighbour_index(const FlowKey& key) const;
    [[nodiscard]] base::Nanoseconds limit_of(Leg::List list) const;

    SlowPathContext& context_;
    std::deque<Leg> slots_;
    std::vector<Leg*> free_;
    std::unordered_map<FlowKey, Leg*, Hash> by_key_;
    std::unordered_map<std::uint32_t, std::array<Leg*, 2>> pinned_;
    std::array<Leg*, static_cast<std::size_t>(Leg::List::count)> oldest_{};
    std::array<Leg*, static_cast<std::size_t>(Leg::List::count)> newest_{};
    std::array<Neighbour, neighbour_count> neighbours_{};
    std::array<Greeting, greeting_count> greetings_{};
    std::size_t total_held_bytes_{0};
    std::size_t total_recent_bytes_{0};
};

// The Ethernet header that answers this frame.
[[nodiscard]] Adjacency reverse_adjacency(std::span<const std::byte> frame, const TcpView& view,
                                          std::uint8_t port_index);
// The Ethernet header of this frame.
[[nodiscard]] Adjacency adjacency_from(std::span<const std::byte> frame, const TcpView& view,
                                       std::uint8_t port_index);

}  // namespace bore::packet
