// A TCP checksum made right again: by the difference of what changed, as the packet path does it,
// and by a sum over the whole segment, as it would otherwise be.
#include <cstddef>
#include <vector>

#include "bench/micro/conclude.hpp"
#include "bench/micro/segments.hpp"
#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/parse.hpp"

namespace bore::bench {

namespace {

using namespace packet;

constexpr std::size_t address_bytes = 8;

// A segment behind its two addresses, which count as well.
struct Summed {
    explicit Summed(std::size_t payload_bytes)
        : tcp_bytes(tcp_header_bytes + payload_bytes),
          buffer(make_buffer(0, abi::Leg::visitor,
                             {.payload_bytes = static_cast<std::uint16_t>(payload_bytes)})),
          addresses(buffer.data() + headroom_bytes + tcp_offset({}) - address_bytes) {}

    [[nodiscard]] std::byte* tcp() const { return addresses + address_bytes; }
    [[nodiscard]] std::uint64_t sum() const {
        return sum_of(addresses, address_bytes + tcp_bytes) + pseudo_sum(tcp_bytes);
    }
    [[nodiscard]] bool right() const { return fold(sum()) == 0xffff; }

    std::size_t tcp_bytes;
    std::vector<std::byte> buffer;
    std::byte* addresses;
};

// What a translation changes: two addresses, both ports, two numbers, the window.
void incremental(benchmark::State& state) {
    const Summed segment(static_cast<std::size_t>(state.range(0)));
    std::uint32_t number = 1;
    for (auto _ : state) {
        std::uint64_t change = 0;
        number += 1'460;
        for (std::byte* at : {segment.addresses, segment.addresses + 4, segment.tcp(),
                              segment.tcp() + 4, segment.tcp() + 8}) {
            change += change32(word32(at), number);
            put_word32(at, number);
        }
        const auto window = static_cast<std::uint16_t>(number);
        change += change16(word16(segment.tcp() + 14), window);
        put_word16(segment.tcp() + 14, window);
        put_word16(segment.tcp() + 16, changed_checksum(word16(segment.tcp() + 16), change));
        benchmark::ClobberMemory();
    }
    conclude(state, "six fields changed, sum by their differences; payload of so many bytes", 1,
             segment.right());
}
BENCHMARK(incremental)->Name("checksum/incremental")->Arg(0)->Arg(1'460);

void full(benchmark::State& state) {
    const Summed segment(static_cast<std::size_t>(state.range(0)));
    std::uint32_t number = 1;
    for (auto _ : state) {
        number += 1'460;
        put_word32(segment.tcp() + 4, number);
        put_word16(segment.tcp() + 16, 0);
        put_word16(segment.tcp() + 16, static_cast<std::uint16_t>(~fold(segment.sum())));
        benchmark::ClobberMemory();
    }
    conclude(state, "sum over a whole segment with a payload of so many bytes", 1, segment.right());
}
BENCHMARK(full)->Name("checksum/full")->Arg(0)->Arg(1'460);

}  // namespace

}  // namespace bore::bench
