// Files of packets for ports that read a capture over and over: each flow once, in an order of
// chance. Format: the classic one of libpcap, version 2.4, in the byte order of this machine.
#include <cstdio>
#include <memory>
#include <vector>

#include "bench/load/json_line.hpp"
#include "bench/packet/flows.hpp"
#include "bench/packet/modes.hpp"

namespace bore::bench {

namespace {

struct FileHeader {
    std::uint32_t magic{0xa1b2'c3d4};
    std::uint16_t major{2}, minor{4};
    std::int32_t zone{0};
    std::uint32_t accuracy{0};
    std::uint32_t longest_bytes{65'535};
    std::uint32_t link_type{1};  // Ethernet
};
static_assert(sizeof(FileHeader) == 24);

struct RecordHeader {
    std::uint32_t seconds{0}, microseconds{0};
    std::uint32_t captured_bytes{0}, frame_bytes{0};
};
static_assert(sizeof(RecordHeader) == 16);

struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
};

bool write(std::FILE* file, const void* bytes, std::size_t size_bytes) {
    return std::fwrite(bytes, 1, size_bytes, file) == size_bytes;
}

}  // namespace

int run_pcap(const PcapOptions& options) {
    const std::unique_ptr<std::FILE, Close> file(std::fopen(options.output.c_str(), "wb"));
    if (file == nullptr) {
        std::perror(options.output.c_str());
        return 1;
    }
    const FrameShape shape{.payload_bytes = options.payload_bytes, .ipv6 = options.ipv6};
    std::vector<std::byte> frame(shape.frame_bytes());
    const auto leg = static_cast<abi::Leg>(options.port);
    const FileHeader header;
    bool written = write(file.get(), &header, sizeof header);
    RecordHeader record;
    record.captured_bytes = record.frame_bytes = static_cast<std::uint32_t>(frame.size());
    for (const std::uint32_t flow : shuffled(options.flow_count, options.seed + options.port)) {
        write_frame(flow, leg, shape, frame);
        written = written && write(file.get(), &record, sizeof record) &&
                  write(file.get(), frame.data(), frame.size());
    }
    if (!written || std::fflush(file.get()) != 0) {
        std::perror(options.output.c_str());
        return 1;
    }
    JsonLine().add("packets", options.flow_count).add("frame_bytes", frame.size()).print();
    return 0;
}

}  // namespace bore::bench
