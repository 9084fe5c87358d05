// One end of the wire: a packet socket on an interface of some network namespace.
#pragma once

#include <linux/if_packet.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tests/wire/buffers.hpp"

namespace bore::wire {

inline constexpr std::size_t burst_frames = 64;

class End {
  public:
    // `place`: INTERFACE, or NAMESPACE:INTERFACE with the path of an open namespace. Ends the
    // program with a sentence when there is no such thing.
    explicit End(const std::string& place);
    ~End();
    End(const End&) = delete;
    End& operator=(const End&) = delete;

    [[nodiscard]] int descriptor() const { return socket_; }

    // Appends at most a burst of received frames; oversized ones are counted and left out.
    void receive(Buffers& buffers, std::vector<BufferIndex>& received, LaneCounters& counters);
    // Sends from the front and returns how many were taken.
    [[nodiscard]] std::size_t send(Buffers& buffers, std::span<const BufferIndex> frames,
                                   LaneCounters& counters);
    // Frames that the kernel dropped because this program was too slow.
    [[nodiscard]] std::uint64_t overruns();

  private:
    void restore_vlan_tag(Buffers& buffers, BufferIndex buffer, msghdr& header) const;

    struct alignas(cmsghdr) Control {
        std::array<std::uint8_t, CMSG_SPACE(sizeof(tpacket_auxdata))> bytes;
    };

    int socket_{-1};
    std::uint64_t overruns_{0};
    std::array<mmsghdr, burst_frames> messages_{};
    std::array<iovec, burst_frames> vectors_{};
    std::array<Control, burst_frames> controls_{};
};

}  // namespace bore::wire
