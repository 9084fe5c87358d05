// Segments of any bytes through the reader: it returns a snapshot within its bounds or an error
// that names the file and a remedy, and reads nothing outside of what it checked.
// Input: how (0: the rest is the whole file; else: a real segment that is cut and overwritten),
// then two bytes of length to cut, then pieces: offset (3 bytes), size, bytes.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dataplane/abi/segment_reader.hpp"
#include "dataplane/abi/statistics.hpp"
#include "dataplane/base/check.hpp"
#include "tests/fuzz/fuzz_input.hpp"

namespace {

using namespace bore::abi;

// Made once: a segment as a relay of two workers, a packet engine and two tunnels leaves it.
const std::string& real_segment() {
    static const std::string bytes = [] {
        Statistics statistics(2, 4, {.worker_count = 1, .port_count = 1});
        SegmentIdentity identity{.process_id = 1, .started_monotonic_ns = 1};
        set_text(identity.server_id, "fuzz");
        statistics.describe(identity);
        statistics.describe_port(0, "0000:03:00.0");
        statistics.set_configuration("min_port = 1024\n");
        for (std::uint32_t row = 0; row < 2; ++row) {
            TunnelDescription description{.port = 7000, .state = TunnelState::live};
            set_text(description.client_address, "192.0.2.1");
            statistics.begin_tunnel(row, description);
            statistics.tunnel(row, row).add(TunnelCounter::to_client_bytes_total, 1'000);
        }
        return std::string(reinterpret_cast<const char*>(statistics.memory().data()),
                           statistics.memory().size_bytes());
    }();
    return bytes;
}

std::string file_of(bore::fuzz::Input& input) {
    if (input.byte() == 0) {
        return input.rest();
    }
    std::string bytes = real_segment();
    const std::size_t cut = input.byte() + 256U * input.byte();
    bytes.resize(bytes.size() - std::min(bytes.size(), cut * 8));
    while (!input.empty() && !bytes.empty()) {
        const std::size_t offset = input.byte() + 256U * input.byte() + 65'536U * input.byte();
        const std::string piece = input.text(input.byte());
        for (std::size_t index = 0; index < piece.size(); ++index) {
            bytes[(offset + index) % bytes.size()] = piece[index];
        }
    }
    return bytes;
}

void look_at(const Snapshot& snapshot) {
    BORE_CHECK(!snapshot.workers.empty() && snapshot.workers.size() <= max_workers, "workers");
    BORE_CHECK(snapshot.packet_workers.size() <= max_workers, "packet workers");
    BORE_CHECK(snapshot.ports.size() <= max_packet_ports, "ports");
    BORE_CHECK(snapshot.tunnels.size() + snapshot.torn_row_count <= snapshot.tunnel_capacity,
               "more tunnels than rows");
    BORE_CHECK(snapshot.configuration.size() <= max_configuration_bytes, "configuration");
    BORE_CHECK(!snapshot.writer_alive && snapshot.stale_since, "nobody holds this file");
    for (const TunnelSnapshot& tunnel : snapshot.tunnels) {
        BORE_CHECK(text_of(tunnel.description.client_address).size() <= 48, "client address");
        BORE_CHECK(text_of(tunnel.description.bind_addresses).size() <= 104, "bind addresses");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bore::fuzz::Input input(data, size);
    const std::string bytes = file_of(input);
    const int descriptor = ::memfd_create("segment", MFD_CLOEXEC);
    BORE_CHECK(descriptor >= 0, "no memory file");
    BORE_CHECK(
        ::write(descriptor, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
        "a memory file takes everything");
    const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
    const auto snapshot = SegmentReader(path).read();
    if (snapshot) {
        look_at(*snapshot);
    } else {
        BORE_CHECK(snapshot.error().text.starts_with(path), "the error names no file");
        BORE_CHECK(snapshot.error().text.find(';') != std::string::npos, "the error has no remedy");
    }
    ::close(descriptor);
    return 0;
}
