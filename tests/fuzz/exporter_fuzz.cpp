// Fuzz target: a scrape of a segment whose blocks are noise. The input overwrites a sound segment
// behind its header: a place, a length and bytes, again and again. Whatever is in it, the reader
// gives an error or a snapshot, and what the exporter writes of that is UTF-8, has no sample twice,
// and the account of the others' counters does not fall.
#include <fcntl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>

#include "controlplane/exporter/families.hpp"
#include "dataplane/abi/segment_reader.hpp"
#include "dataplane/abi/statistics.hpp"
#include "dataplane/base/check.hpp"
#include "tests/fuzz/fuzz_input.hpp"

namespace {

using namespace bore;

constexpr abi::SegmentShape shape{
    .worker_count = 2, .tunnel_capacity = 4, .packet = {.worker_count = 1, .port_count = 1}};

// The file that is overwritten, and how it looks when it is sound.
struct Segment {
    Segment() {
        std::string folder = "/dev/shm/bore-fuzz-XXXXXX";
        BORE_CHECK(::mkdtemp(folder.data()) != nullptr, "a folder in /dev/shm");
        sound = made_in(folder);
        // A copy without a name: nothing is left behind when the fuzzer is killed.
        path = folder + "/copy";
        descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        BORE_CHECK(descriptor >= 0, "a copy can be made");
        ::unlink(path.c_str());
        ::rmdir(folder.c_str());
        path = "/proc/self/fd/" + std::to_string(descriptor);
        restore();
    }
    static std::string made_in(const std::string& folder) {
        auto statistics = abi::Statistics::shared(
            shape, {.name = "bore-noise", .group = std::nullopt, .directory = folder});
        BORE_CHECK(statistics.has_value(), "a segment can be made");
        abi::SegmentIdentity identity{.started_monotonic_ns = 1};
        abi::set_text(identity.server_id, "noise");
        statistics->describe(identity);
        statistics->set_configuration("max_tunnels = 4\n");
        for (std::uint32_t row = 0; row < shape.tunnel_capacity; ++row) {
            statistics->begin_tunnel(row, {.port = static_cast<std::uint16_t>(5'000 + row),
                                           .state = abi::TunnelState::live});
        }
        return {reinterpret_cast<const char*>(statistics->memory().data()),
                statistics->memory().size_bytes()};
    }
    void restore() const { write(sound, 0); }
    void write(const std::string& bytes, std::size_t offset) const {
        BORE_CHECK(::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
                       static_cast<ssize_t>(bytes.size()),
                   "the copy can be written");
    }

    std::string sound;
    std::string path;
    int descriptor{-1};
};

bool is_utf8(const std::string& text) {
    return exporter::label_text(text) == text || text.size() > 160;
}

void check(const prometheus::MetricFamily& family) {
    std::set<std::string> samples;
    for (const prometheus::ClientMetric& metric : family.metric) {
        std::string key;
        for (const auto& label : metric.label) {
            BORE_CHECK(is_utf8(label.value), "labels are UTF-8");
            key += label.name + "=" + std::to_string(label.value.size()) + label.value + ",";
        }
        BORE_CHECK(samples.insert(key).second, "a sample is there once");
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const Segment segment;
    static abi::SegmentReader reader(segment.path);
    segment.restore();
    fuzz::Input input(data, size);
    exporter::TunnelAccounts accounts(input.below(4), 0);
    std::uint64_t other_before = 0;
    std::uint64_t instance_before = 0;
    for (int round = 0; round < 3; ++round) {
        for (int writes = 0; writes < 4 && !input.empty(); ++writes) {
            const std::size_t room = segment.sound.size() - abi::segment_header_bytes;
            const std::size_t place =
                (input.byte() | std::size_t{input.byte()} << 8 | std::size_t{input.byte()} << 16) %
                room;
            const std::string bytes = input.text(std::min<std::size_t>(input.byte(), room - place));
            segment.write(bytes, abi::segment_header_bytes + place);
        }
        auto snapshot = reader.read();
        if (!snapshot) {
            BORE_CHECK(!snapshot.error().text.empty(), "an error is a sentence");
            continue;
        }
        snapshot->writer_alive = true;  // nobody holds the copy's lock
        accounts.update(*snapshot);
        const std::uint64_t other =
            accounts.other().stream.get(abi::TunnelCounter::to_client_bytes_total);
        BORE_CHECK(snapshot->instance_id != instance_before || other >= other_before ||
                       other_before - other > std::uint64_t{1} << 63U,
                   "the others' counter does not fall, but for the end of 64 bits");
        other_before = other;
        instance_before = snapshot->instance_id;
        const std::vector<exporter::RelayView> views{
            {.name = "noise", .snapshot = &*snapshot, .accounts = &accounts, .limits = {4, 1}}};
        exporter::write_relays(views, check);
    }
    return 0;
}
