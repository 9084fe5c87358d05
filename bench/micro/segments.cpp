#include "bench/micro/segments.hpp"

#include <sys/mman.h>

#include <array>
#include <cstring>
#include <new>

#include "dataplane/packet/checksum.hpp"
#include "dataplane/packet/parse.hpp"

namespace bore::bench {

namespace {

constexpr std::size_t huge_page_bytes = std::size_t{2} << 20U;

// Ordinary memory that the kernel may back with transparent huge pages. bench/packet uses real
// ones, which must be set aside by root.
class LargePageMemory final : public packet::TableMemory {
  public:
    std::byte* reserve(std::size_t size_bytes) override {
        auto* space = static_cast<std::byte*>(
            ::operator new(size_bytes, std::align_val_t{huge_page_bytes}, std::nothrow));
        if (space != nullptr) {
            (void)::madvise(space, size_bytes, MADV_HUGEPAGE);
        }
        return space;
    }
    bool commit(std::byte* at, std::size_t size_bytes) override {
        std::memset(at, 0, size_bytes);
        return true;
    }
    void release(std::byte* at, std::size_t /*size_bytes*/) override {
        ::operator delete(at, std::align_val_t{huge_page_bytes});
    }
    std::size_t granule_bytes() const override { return huge_page_bytes; }
};

constexpr std::uint32_t own_timestamp = 5'000;
constexpr std::uint32_t peer_timestamp = 9'000;

packet::FlowState state_of(std::uint32_t flow, const SegmentShape& shape) {
    packet::FlowState state = flow_state(flow, shape.ipv6);
    for (packet::LegState& leg : state.legs) {
        leg.timestamps = shape.timestamps;
        leg.own_timestamp = own_timestamp;
        leg.peer_timestamp = peer_timestamp;
    }
    return state;
}

std::vector<std::byte> options_of(const SegmentShape& shape, std::uint32_t acknowledgement) {
    const std::size_t sack_bytes =
        shape.sack_blocks == 0 ? 0 : 4 + shape.sack_blocks * packet::sack_block_bytes;
    std::vector<std::byte> options((shape.timestamps ? 12 : 0) + sack_bytes);
    std::byte* at = options.data();
    if (shape.timestamps) {
        packet::store32(at, 0x0101'080a);
        packet::store32(at + 4, peer_timestamp + 100);
        packet::store32(at + 8, own_timestamp);
        at += 12;
    }
    if (sack_bytes != 0) {
        packet::store32(at, 0x0101'0502U + shape.sack_blocks * 8U);
        at += 4;
        for (std::uint32_t edge = 0; edge < shape.sack_blocks * 2U; ++edge, at += 4) {
            packet::store32(at, acknowledgement + 1'460 * (edge + 1));
        }
    }
    return options;
}

}  // namespace

std::size_t tcp_offset(const SegmentShape& shape) {
    return packet::ethernet_header_bytes +
           (shape.ipv6 ? packet::ipv6_header_bytes : packet::ipv4_header_bytes);
}

std::vector<std::byte> make_buffer(std::uint32_t flow, abi::Leg leg, const SegmentShape& shape) {
    const std::size_t option_bytes = options_of(shape, 0).size();
    // Options first take the place of payload; then the header is told that they are its own.
    const FrameShape whole{
        .payload_bytes = static_cast<std::uint16_t>(shape.payload_bytes + option_bytes),
        .least_frame_bytes = 60,
        .ipv6 = shape.ipv6};
    std::vector<std::byte> buffer(headroom_bytes + whole.frame_bytes());
    const std::span<std::byte> frame = std::span(buffer).subspan(headroom_bytes);
    write_frame(flow, leg, whole, frame);
    std::byte* tcp = frame.data() + tcp_offset(shape);
    const std::vector<std::byte> options = options_of(shape, packet::load32(tcp + 8));
    const std::size_t header_bytes = packet::tcp_header_bytes + option_bytes;
    std::memcpy(tcp + packet::tcp_header_bytes, options.data(), options.size());
    packet::store8(tcp + 12, static_cast<std::uint8_t>(header_bytes / 4 << 4U));
    packet::put_word16(tcp + 16, 0);
    const std::size_t tcp_bytes = header_bytes + shape.payload_bytes;
    const std::size_t address_bytes = shape.ipv6 ? 32 : 8;
    packet::put_word16(
        tcp + 16, static_cast<std::uint16_t>(
                      ~packet::fold(packet::sum_of(tcp - address_bytes, address_bytes + tcp_bytes) +
                                    packet::pseudo_sum(tcp_bytes))));
    return buffer;
}

packet::Frame frame_in(std::span<std::byte> buffer) {
    packet::Frame frame;
    frame.data = buffer.data() + headroom_bytes;
    frame.length_bytes = static_cast<std::uint16_t>(buffer.size() - headroom_bytes);
    frame.headroom_bytes = headroom_bytes;
    return frame;
}

bool checksums_right(std::span<const std::byte> frame, const SegmentShape& shape) {
    const std::byte* ip = frame.data() + packet::ethernet_header_bytes;
    const std::byte* tcp = frame.data() + tcp_offset(shape);
    const std::size_t ip_bytes = tcp_offset(shape) - packet::ethernet_header_bytes;
    const std::size_t total_bytes =
        shape.ipv6 ? packet::load16(ip + 4) + ip_bytes : packet::load16(ip + 2);
    const std::size_t tcp_bytes = total_bytes - ip_bytes;
    const std::size_t address_bytes = shape.ipv6 ? 32 : 8;
    const bool header = shape.ipv6 || packet::fold(packet::sum_of(ip, ip_bytes)) == 0xffff;
    return header && total_bytes + packet::ethernet_header_bytes <= frame.size() &&
           packet::fold(packet::sum_of(tcp - address_bytes, address_bytes + tcp_bytes) +
                        packet::pseudo_sum(tcp_bytes)) == 0xffff;
}

Installed install(std::uint32_t flow_count, const SegmentShape& shape) {
    Installed made;
    made.memory = std::make_unique<LargePageMemory>();
    auto table = packet::FlowTable::make(*made.memory, flow_count, 1, 1);
    BORE_CHECK(table.has_value(), "no memory for the flow table of a benchmark");
    made.table = std::move(*table);
    // Makes the adjacencies; flows are our own where they differ.
    BORE_CHECK(install_flows(*made.table, shape.timestamps ? 0 : flow_count, shape.ipv6, 1),
               "no memory for the flows of a benchmark");
    for (std::uint32_t flow = 0; shape.timestamps && flow < flow_count; ++flow) {
        BORE_CHECK(made.table->install(state_of(flow, shape), 0).has_value(),
                   "no memory for the flows of a benchmark");
    }
    return made;
}

}  // namespace bore::bench
