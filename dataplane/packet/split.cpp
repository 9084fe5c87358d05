#include "dataplane/packet/split.hpp"

#include <algorithm>

#include "dataplane/packet/checksum.hpp"

namespace bore::packet {

namespace {

struct Piece {
    std::size_t index{0};
    std::size_t payload_bytes{0};
    bool last{false};
};

// Headers of a piece; `frame` holds the whole's headers and the piece's payload behind them.
void finish(Frame& frame, const TcpView& whole, std::size_t payload_bytes_each,
            const Piece& piece) {
    std::byte* ip = frame.data + whole.ip_offset;
    std::byte* tcp = frame.data + whole.tcp_offset;
    const std::size_t tcp_bytes = whole.tcp_bytes() + piece.payload_bytes;
    if (whole.v6) {
        store16(ip + 4, static_cast<std::uint16_t>(tcp_bytes));
    } else {
        const std::uint16_t length_before = word16(ip + 2);
        const std::uint16_t identification_before = word16(ip + 4);
        store16(ip + 2, static_cast<std::uint16_t>(ipv4_header_bytes + tcp_bytes));
        store16(ip + 4, static_cast<std::uint16_t>(load16(ip + 4) + piece.index));
        put_word16(ip + 10, changed_checksum(word16(ip + 10),
                                             change16(length_before, word16(ip + 2)) +
                                                 change16(identification_before, word16(ip + 4))));
    }
    store32(tcp + 4, static_cast<std::uint32_t>(whole.sequence + piece.index * payload_bytes_each));
    if (!piece.last) {
        store8(tcp + 13, whole.flags & static_cast<std::uint8_t>(~(tcp_psh | tcp_fin)));
    }
    put_word16(tcp + 16, 0);
    const std::uint64_t addresses = whole.v6 ? sum_of(ip + 8, 32) : sum_of(ip + 12, 8);
    put_word16(tcp + 16, static_cast<std::uint16_t>(
                             ~fold(addresses + pseudo_sum(tcp_bytes) + sum_of(tcp, tcp_bytes))));
}

}  // namespace

std::expected<std::size_t, PacketReason> split(const Frame& whole, std::size_t payload_bytes_each,
                                               Outlet& outlet,
                                               std::span<Frame, max_pieces> pieces) {
    TcpView view;
    if (parse(whole.bytes(), view) != PacketReason::spliced || payload_bytes_each == 0) {
        return std::unexpected(PacketReason::too_big);
    }
    const std::size_t count = (view.payload_bytes + payload_bytes_each - 1) / payload_bytes_each;
    if (count > max_pieces || count < 2) {
        return std::unexpected(PacketReason::too_big);
    }
    for (std::size_t index = 1; index < count; ++index) {
        const std::size_t offset = index * payload_bytes_each;
        const Piece piece{
            .index = index,
            .payload_bytes = std::min(payload_bytes_each, view.payload_bytes - offset),
            .last = index + 1 == count};
        const std::size_t frame_bytes = view.payload_offset + piece.payload_bytes;
        Frame& frame = pieces[index];
        frame = Frame{};
        const bool allocated = outlet.allocate(whole.port_index, frame);
        if (!allocated || frame.tailroom_bytes < frame_bytes) {
            outlet.drop(pieces.subspan(1, allocated ? index : index - 1));
            return std::unexpected(allocated ? PacketReason::too_big : PacketReason::no_buffer);
        }
        std::memcpy(frame.data, whole.data, view.payload_offset);
        std::memcpy(frame.data + view.payload_offset, whole.data + view.payload_offset + offset,
                    piece.payload_bytes);
        frame.length_bytes = static_cast<std::uint16_t>(frame_bytes);
        frame.port_index = whole.port_index;
        finish(frame, view, payload_bytes_each, piece);
    }
    Frame& first = pieces[0];
    first = whole;
    const std::size_t cut = view.payload_bytes - payload_bytes_each;
    first.length_bytes = static_cast<std::uint16_t>(first.length_bytes - cut);
    finish(first, view, payload_bytes_each, {.index = 0, .payload_bytes = payload_bytes_each});
    return count;
}

}  // namespace bore::packet
