// From a frame to a view of its segment.
#include <array>
#include <span>
#include <vector>

#include "bench/micro/conclude.hpp"
#include "bench/micro/segments.hpp"
#include "dataplane/packet/express.hpp"
#include "dataplane/packet/parse.hpp"

namespace bore::bench {

namespace {

using abi::PacketReason;
using packet::TcpView;

// A burst of frames, in the caches.
class Burst {
  public:
    explicit Burst(const SegmentShape& shape) {
        for (std::uint32_t flow = 0; flow < packet::max_burst; ++flow) {
            buffers_.push_back(make_buffer(flow, abi::Leg::visitor, shape));
        }
        for (std::vector<std::byte>& buffer : buffers_) {
            frames.push_back(frame_in(buffer));
        }
    }
    std::vector<packet::Frame> frames;

  private:
    std::vector<std::vector<std::byte>> buffers_;
};

// `parse_one` reads frame and fills the view; `holds` looks at the last view.
template <typename ParseOne, typename Holds>
void parse_all(benchmark::State& state, const SegmentShape& shape, const char* item,
               const ParseOne& parse_one, const Holds& holds) {
    const Burst burst(shape);
    TcpView view;
    bool right = true;
    for (auto _ : state) {
        for (const packet::Frame& frame : burst.frames) {
            right &= parse_one(frame, view);
            keep(view);
        }
    }
    conclude(state, item, packet::max_burst, right && holds(view));
}

bool is_last_of_burst(const TcpView& view) {
    return view.source_port == 1'024 + packet::max_burst - 1 && view.payload_bytes == 100;
}

void usual(benchmark::State& state) {
    parse_all(
        state, {.payload_bytes = 100}, "frame of IPv4 parsed by the short way",
        [](const packet::Frame& frame, TcpView& view) {
            return packet::parse_usual(frame.bytes(), view) == PacketReason::spliced;
        },
        is_last_of_burst);
}
BENCHMARK(usual)->Name("parse/usual");

bool parse_general(const packet::Frame& frame, TcpView& view) {
    return packet::parse(frame.bytes(), view) == PacketReason::spliced;
}

void ipv4(benchmark::State& state) {
    parse_all(state, {.payload_bytes = 100}, "frame of IPv4 parsed by the general way",
              parse_general, is_last_of_burst);
}
BENCHMARK(ipv4)->Name("parse/ipv4");

void ipv6(benchmark::State& state) {
    parse_all(state, {.payload_bytes = 100, .ipv6 = true}, "frame of IPv6 parsed", parse_general,
              is_last_of_burst);
}
BENCHMARK(ipv6)->Name("parse/ipv6");

bool parse_options(const packet::Frame& frame, TcpView& view) {
    return parse_general(frame, view) &&
           packet::find_options(frame.bytes(), view) == PacketReason::spliced;
}

void timestamps(benchmark::State& state) {
    parse_all(state, {.payload_bytes = 100, .timestamps = true},
              "frame of IPv4 parsed, its timestamps found", parse_options, [](const TcpView& view) {
                  return view.timestamp_offset != 0 && view.sack_blocks == 0;
              });
}
BENCHMARK(timestamps)->Name("parse/timestamps");

void sack(benchmark::State& state) {
    parse_all(
        state, {.timestamps = true, .sack_blocks = 3},
        "frame of IPv4 parsed, its timestamps and 3 SACK blocks found", parse_options,
        [](const TcpView& view) { return view.timestamp_offset != 0 && view.sack_blocks == 3; });
}
BENCHMARK(sack)->Name("parse/sack");

// What the packet path does instead of parsing for nearly every frame.
void recognize(benchmark::State& state) {
    const Burst burst({.payload_bytes = 100});
    bool right = true;
    for (auto _ : state) {
        for (const packet::Frame& frame : burst.frames) {
            right &= packet::express::recognize(frame);
            auto key = packet::express::key_of(frame.data);
            keep(key);
        }
    }
    conclude(state, "frame recognized and its key taken, express way", packet::max_burst, right);
}
BENCHMARK(recognize)->Name("parse/recognize");

}  // namespace

}  // namespace bore::bench
