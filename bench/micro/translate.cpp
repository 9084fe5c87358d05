// One segment of one leg becomes one of the other, by the express way and by the general one. A
// translated frame is another flow's, so each turn begins with the headers as they came: that copy
// is in every row, and `translate/copy_only` says what it costs.
//
// Both legs of 16 flows take turns. With payload, sequence numbers and acknowledgements go on as
// they do in a transfer in both directions, so segments are new data and acknowledge what the other
// side has sent.
#include <array>
#include <cstddef>
#include <cstring>
#include <vector>

#include "bench/micro/conclude.hpp"
#include "bench/micro/segments.hpp"
#include "dataplane/packet/express.hpp"
#include "dataplane/packet/translate.hpp"

namespace bore::bench {

namespace {

using abi::Leg;
using abi::PacketReason;
using packet::DirectionIndex;
using packet::Frame;
using packet::TcpView;

constexpr std::uint32_t flow_count = 16;
constexpr std::size_t header_bytes = 128;  // no headers here are longer

// A segment that comes again and again.
struct Sender {
    std::vector<std::byte> buffer;
    std::array<std::byte, header_bytes> headers{};  // as they came
    std::size_t copied_bytes{0};
    DirectionIndex direction{0};
};

class Stage {
  public:
    explicit Stage(const SegmentShape& shape)
        : shape_(shape), installed_(install(flow_count, shape)), moment_(base::second_ns) {
        for (std::uint32_t flow = 0; flow < flow_count; ++flow) {
            for (const Leg leg : {Leg::visitor, Leg::client}) {
                Sender sender;
                sender.buffer = make_buffer(flow, leg, shape);
                sender.copied_bytes = std::min(header_bytes, sender.buffer.size() - headroom_bytes);
                std::memcpy(sender.headers.data(), sender.buffer.data() + headroom_bytes,
                            sender.copied_bytes);
                const packet::FlowKey key =
                    flow_state(flow, shape.ipv6).legs[static_cast<std::size_t>(leg)].key;
                sender.direction =
                    installed_.table->find(key).value_or(packet::FlowTable::no_direction);
                senders_.push_back(std::move(sender));
            }
        }
    }

    [[nodiscard]] const SegmentShape& shape() const { return shape_; }
    [[nodiscard]] std::size_t burst() const { return senders_.size(); }

    // The next segment of sender `index`, as it would come from the wire.
    Frame come(std::size_t index) {
        Sender& sender = senders_[index];
        Frame frame = frame_in(sender.buffer);
        std::memcpy(frame.data, sender.headers.data(), sender.copied_bytes);
        if (shape_.payload_bytes != 0) {
            std::byte* tcp = sender.headers.data() + tcp_offset(shape_);
            packet::store32(tcp + 4, packet::load32(tcp + 4) + shape_.payload_bytes);
            packet::store32(tcp + 8, packet::load32(tcp + 8) + shape_.payload_bytes);
        }
        return frame;
    }

    bool express(Frame& frame, std::size_t index) {
        packet::DirectionEntry* entries = &installed_.table->direction(0);
        const DirectionIndex direction = senders_[index].direction;
        const packet::Adjacency* adjacencies = &installed_.table->adjacency_at(0);
        std::uint32_t bytes = 0;
        return packet::express::pass(frame, entries, direction, adjacencies, moment_.tick, bytes) ||
               packet::express::pass_leaving(frame, entries, direction, adjacencies, moment_.tick,
                                             bytes);
    }

    bool general(Frame& frame, std::size_t index) {
        TcpView view;
        if (packet::parse(frame.bytes(), view) != PacketReason::spliced) {
            return false;
        }
        packet::Outcome outcome;
        return packet::translate(frame, view, passage(senders_[index].direction), moment_, tally_,
                                 outcome) == PacketReason::spliced &&
               outcome.payload_bytes == shape_.payload_bytes;
    }

    // One more turn of every sender, looked at closely: the frame is the other leg's, every byte
    // of both checksums counts.
    bool verify(bool by_express) {
        // Checksums of frames whose numbers have moved on are as wrong as before; a fresh stage
        // has right ones.
        Stage fresh(shape_);
        for (std::size_t index = 0; index < fresh.burst(); ++index) {
            Frame frame = fresh.come(index);
            const packet::FlowState state =
                flow_state(static_cast<std::uint32_t>(index / 2), shape_.ipv6);
            const packet::FlowKey& out = state.legs[1 - index % 2].key;
            const bool passed =
                by_express ? fresh.express(frame, index) : fresh.general(frame, index);
            const std::byte* tcp = frame.data + tcp_offset(shape_);
            if (!passed || !checksums_right(frame.bytes(), shape_) ||
                packet::load16(tcp) != out.own_port || packet::load16(tcp + 2) != out.peer_port) {
                return false;
            }
        }
        return true;
    }

  private:
    [[nodiscard]] packet::Passage passage(DirectionIndex direction) {
        packet::FlowTable& table = *installed_.table;
        packet::DirectionEntry& entry = table.direction(direction);
        const packet::FlowIndex flow = packet::flow_of(direction);
        return {.entry = entry,
                .adjacency = table.adjacency_at(entry.adjacency),
                .other = table.direction(direction ^ 1U),
                .cold = table.cold(flow),
                .addresses = table.addresses(flow),
                .in = packet::leg_of(direction)};
    }

    SegmentShape shape_;
    Installed installed_;
    packet::Moment moment_;
    packet::Tally tally_;
    std::vector<Sender> senders_;
};

enum class Way : std::uint8_t { none, express, general };

void run(benchmark::State& state, Way way, const SegmentShape& shape, const char* item) {
    Stage stage(shape);
    std::int64_t passed = 0;
    for (auto _ : state) {
        for (std::size_t index = 0; index < stage.burst(); ++index) {
            Frame frame = stage.come(index);
            const bool through = way == Way::none      ? true
                                 : way == Way::express ? stage.express(frame, index)
                                                       : stage.general(frame, index);
            // Where numbers cross a block of 64 KiB the general way takes over, as in the pipeline.
            passed += static_cast<std::int64_t>(through || stage.general(frame, index));
            keep(frame.data);
            benchmark::ClobberMemory();
        }
    }
    const auto burst = static_cast<std::int64_t>(stage.burst());
    conclude(state, item, burst,
             passed == burst * state.iterations() &&
                 (way == Way::none || stage.verify(way == Way::express)));
}

const SegmentShape bare{};
const SegmentShape full{.payload_bytes = 1'460};
const SegmentShape stamped{.payload_bytes = 1'448, .timestamps = true};
const SegmentShape with_sack{.timestamps = true, .sack_blocks = 3};
const SegmentShape bare_ipv6{.ipv6 = true};

BENCHMARK_CAPTURE(run, copy_only, Way::none, bare, "the headers' copy that all rows here contain")
    ->Name("translate/copy_only");
BENCHMARK_CAPTURE(run, express_ack, Way::express, bare, "bare ACK, express way")
    ->Name("translate/express_ack");
BENCHMARK_CAPTURE(run, express_full, Way::express, full, "1,460 bytes of payload, express way")
    ->Name("translate/express_1460");
BENCHMARK_CAPTURE(run, express_stamped, Way::express, stamped,
                  "1,448 bytes of payload and timestamps, express way")
    ->Name("translate/express_timestamps");
BENCHMARK_CAPTURE(run, general_ack, Way::general, bare, "bare ACK, general way, parsed")
    ->Name("translate/general_ack");
BENCHMARK_CAPTURE(run, general_full, Way::general, full,
                  "1,460 bytes of payload, general way, parsed")
    ->Name("translate/general_1460");
BENCHMARK_CAPTURE(run, general_stamped, Way::general, stamped,
                  "1,448 bytes of payload and timestamps, general way, parsed")
    ->Name("translate/general_timestamps");
BENCHMARK_CAPTURE(run, general_sack, Way::general, with_sack,
                  "ACK with timestamps and 3 SACK blocks, general way, parsed")
    ->Name("translate/general_sack");
BENCHMARK_CAPTURE(run, general_ipv6, Way::general, bare_ipv6,
                  "bare ACK of IPv6, general way, parsed")
    ->Name("translate/general_ipv6");

}  // namespace

}  // namespace bore::bench
