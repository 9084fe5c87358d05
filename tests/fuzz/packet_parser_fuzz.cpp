// Frames of any bytes through the parser and, several in a row, through the packet path with one
// spliced flow. Nothing may be read or written outside a frame and its room; what leaves is a
// segment of the other leg whose checksums are right when the ones that came were, and wrong when
// they were not; what goes to the kernel goes as it came; every buffer goes exactly one way.
// Input: the flow's choices; then frames: choices, two bytes of length, bytes.
#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "dataplane/packet/pipeline.hpp"
#include "tests/fuzz/packet_input.hpp"

namespace {

using namespace bore::packet;
using bore::abi::Leg;
using bore::fuzz::Bytes;
using bore::fuzz::ExactFrame;

constexpr std::size_t max_frame_bytes = 4'096;
constexpr std::size_t max_frames = 6;

bool same(const TcpView& one, const TcpView& other) {
    return one.sequence == other.sequence && one.acknowledgement == other.acknowledgement &&
           one.source_port == other.source_port && one.destination_port == other.destination_port &&
           one.window == other.window && one.payload_bytes == other.payload_bytes &&
           one.ip_offset == other.ip_offset && one.tcp_offset == other.tcp_offset &&
           one.payload_offset == other.payload_offset && one.flags == other.flags &&
           one.reserved_flags == other.reserved_flags && one.v6 == other.v6;
}

// Both parsers on the same bytes, and the options.
PacketReason parse_alone(std::span<const std::byte> bytes, TcpView& view) {
    const ExactFrame exact(bytes, 0, 0);
    const std::span<const std::byte> frame = exact.frame.bytes();
    TcpView quick;
    const PacketReason reason = parse(frame, view);
    BORE_CHECK(parse_usual(frame, quick) == reason, "the quick parser disagrees");
    if (reason != PacketReason::spliced) {
        return reason;
    }
    BORE_CHECK(same(view, quick), "the quick parser reads another segment");
    BORE_CHECK(view.end_offset() <= frame.size(), "the segment leaves the frame");
    BORE_CHECK(view.payload_offset >= view.tcp_offset + tcp_header_bytes, "no TCP header");
    const TcpView before = view;
    if (find_options(frame, view) == PacketReason::spliced) {
        BORE_CHECK(view.timestamp_offset == 0 || view.timestamp_offset + 8 <= view.payload_offset,
                   "timestamps leave the header");
        BORE_CHECK(
            view.sack_offset == 0 || view.sack_offset + view.sack_blocks * 8 <= view.payload_offset,
            "SACK leaves the header");
    }
    view = before;
    return reason;
}

class Judge final : public Outlet {
  public:
    explicit Judge(const bore::packet::test::SplicedPair& pair) : pair_(pair) {}

    // The next frame that goes in.
    void expect(const ExactFrame& came, bool parsed, bool right) {
        came_ = &came;
        before_ = Bytes(came.frame.data, came.frame.data + came.frame.length_bytes);
        parsed_ = parsed;
        right_ = right;
        seen_ = 0;
        allocated_.clear();
    }
    void settle() const {
        BORE_CHECK(seen_ == 1 + allocated_.size(), "a buffer went no way or two");
    }

    void send(std::span<Frame> frames) override {
        for (const Frame& frame : frames) {
            owner(frame).check(frame);
            BORE_CHECK(parsed_, "a frame was spliced that does not parse");
            TcpView view;
            BORE_CHECK(parse(frame.bytes(), view) == PacketReason::spliced, "output unreadable");
            BORE_CHECK(find_options(frame.bytes(), view) == PacketReason::spliced,
                       "malformed options leave");
            const FlowKey key = reversed_key_of(view, frame.bytes());
            const bool to_visitor = key == pair_.leg(Leg::visitor).key;
            BORE_CHECK(to_visitor || key == pair_.leg(Leg::client).key, "sent to a stranger");
            BORE_CHECK(frame.port_index == (to_visitor ? bore::packet::test::visitor_port
                                                       : bore::packet::test::client_port),
                       "sent by the wrong port");
            const bool right = bore::packet::test::checksum_complaint(frame.bytes()).empty();
            BORE_CHECK(right == right_, "a checksum was spoilt or healed");
            ++seen_;
        }
    }
    void divert(std::span<Frame> frames) override {
        for (const Frame& frame : frames) {
            owner(frame).check(frame);
            const Bytes after(frame.data, frame.data + frame.length_bytes);
            BORE_CHECK(after == before_, "the kernel gets another frame than came");
            ++seen_;
        }
    }
    void drop(std::span<Frame> frames) override { seen_ += frames.size(); }
    bool allocate(std::uint8_t port_index, Frame& frame) override {
        if (allocated_.size() == 12) {
            return false;
        }
        const ExactFrame& fresh =
            allocated_.emplace_back(std::span<const std::byte>{}, 128, max_frame_bytes);
        frame = fresh.frame;
        frame.port_index = port_index;
        return true;
    }
    void flow_event(const FlowEvent& event) override {
        BORE_CHECK(event.flow == pair_.flow, "an end of another flow");
    }

  private:
    const ExactFrame& owner(const Frame& frame) const {
        for (const ExactFrame& one : allocated_) {
            if (one.frame.buffer == frame.buffer) {
                return one;
            }
        }
        return *came_;
    }

    const bore::packet::test::SplicedPair& pair_;
    const ExactFrame* came_{nullptr};
    Bytes before_;
    bool parsed_{false};
    bool right_{false};
    std::size_t seen_{0};
    std::deque<ExactFrame> allocated_;
};

// Makes a segment one of the flow: its tuple, numbers relative to the splice, right checksums.
void adopt(Bytes& bytes, TcpView& view, std::uint8_t choices,
           const bore::packet::test::SplicedPair& pair) {
    const LegState& leg = pair.leg((choices & 0x01U) != 0 ? Leg::client : Leg::visitor);
    std::byte* tcp = bytes.data() + view.tcp_offset;
    if ((choices & 0x02U) != 0) {
        bore::fuzz::put_ends(bytes.data() + view.ip_offset, tcp, view.v6, leg.key.peer_address,
                             leg.key.own_address, leg.key.peer_port, leg.key.own_port);
    }
    if ((choices & 0x04U) != 0) {
        store32(tcp + 4, view.sequence + leg.rcv_nxt);
        store32(tcp + 8, view.acknowledgement + leg.snd_nxt);
    }
    if ((choices & 0x08U) != 0) {
        bore::fuzz::fix_checksums(bytes, view);
    }
}

struct Drawn {
    std::uint8_t choices;
    Bytes bytes;
};
std::vector<Drawn> draw_frames(bore::fuzz::Input& input) {
    std::vector<Drawn> frames;
    while (!input.empty() && frames.size() < max_frames) {
        const std::uint8_t choices = input.byte();
        const std::size_t length =
            (input.byte() * std::size_t{256} + input.byte()) % (max_frame_bytes + 1);
        frames.push_back({choices, bore::fuzz::bytes_of(input.text(length))});
    }
    return frames;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bore::fuzz::Input input{data, size};
    const std::uint8_t flow_choices = input.byte();
    std::vector<Drawn> frames = draw_frames(input);
    std::vector<TcpView> views(frames.size());
    std::vector<bool> parsed;
    bool v6 = false;
    for (std::size_t index = 0; index < frames.size(); ++index) {
        parsed.push_back(parse_alone(frames[index].bytes, views[index]) == PacketReason::spliced);
        v6 = v6 || (parsed.back() && views[index].v6);
    }

    bore::packet::test::SplicedPair& pair = bore::fuzz::draw_pair(flow_choices, v6);
    bore::abi::PacketWorkerCounters counters;
    std::array<bore::abi::TunnelCounters, 8> rows;
    Judge judge(pair);
    Pipeline pipeline(0, *pair.table, counters, rows, judge);
    for (std::size_t index = 0; index < frames.size(); ++index) {
        Drawn& drawn = frames[index];
        if (parsed[index] && views[index].v6 == v6) {
            adopt(drawn.bytes, views[index], drawn.choices, pair);
        }
        constexpr std::size_t headrooms[] = {0, 4, 16, 128};
        const ExactFrame exact(drawn.bytes, headrooms[drawn.choices >> 4U & 3U],
                               (drawn.choices & 0x40U) != 0 ? 64 : 0);
        const bool right = bore::packet::test::checksum_complaint(drawn.bytes).empty();
        judge.expect(exact, parsed[index], right);
        Frame frame = exact.frame;
        pipeline.process({&frame, 1}, pair.now_ns + index * 1'000'000);
        judge.settle();
    }
    return 0;
}
