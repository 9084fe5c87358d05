// Reading a segment: header first, checked against itself and the file, then one block after the
// other, tunnels last.
//
// Tunnels: 1. all descriptions, 2. the rows of counters of every writer, 3. all descriptions again.
// A row whose sequence number was odd or whose words differ between 1 and 3 was written meanwhile
// and is read again by itself.
#include "dataplane/abi/segment_reader.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "dataplane/abi/segment_owner.hpp"

namespace bore::abi {

namespace {

using Kind = SegmentError::Kind;
using Words = std::vector<std::uint64_t>;

constexpr std::size_t word_bytes = sizeof(std::uint64_t);
constexpr std::size_t description_words = sizeof(TunnelDescriptionRow) / word_bytes;
constexpr std::size_t row_words = sizeof(TunnelCounters) / word_bytes;
constexpr std::size_t tunnel_counter_count = static_cast<std::size_t>(TunnelCounter::count);
constexpr int torn_row_attempts = 16;

// One open segment. Functions fail by leaving an error and returning false: a block cannot be read
// only if the file was cut or the disk of a copy fails.
class OpenSegment {
  public:
    OpenSegment(const std::string& path, Owners owners)
        : path_(path),
          owners_(owners),
          descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY |
                                               (owners == Owners::relays ? O_NOFOLLOW : 0))) {}
    OpenSegment(const OpenSegment&) = delete;
    OpenSegment& operator=(const OpenSegment&) = delete;
    ~OpenSegment() {
        if (descriptor_ >= 0) {
            ::close(descriptor_);
        }
    }

    [[nodiscard]] bool check_header();
    [[nodiscard]] bool writer_alive() const;

    // `words.size()` words of a block, from word `from_word` of its element `index` on.
    [[nodiscard]] bool read(Block block, std::uint64_t index, std::span<std::uint64_t> words,
                            std::size_t from_word = 0) {
        const BlockPlace& place = header_.blocks[static_cast<std::size_t>(block)];
        return read_at(place.offset + place.stride_bytes * index + from_word * word_bytes, words);
    }
    template <typename T>
    [[nodiscard]] bool read_plain(Block block, std::uint64_t index, T& value) {
        static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % word_bytes == 0);
        std::array<std::uint64_t, sizeof(T) / word_bytes> words;
        if (!read(block, index, words)) {
            return false;
        }
        value = std::bit_cast<T>(words);
        return true;
    }
    template <typename Enum>
    [[nodiscard]] bool read_counters(Block block, std::uint64_t index, CounterValues<Enum>& set) {
        return read(block, index, set.values);
    }
    [[nodiscard]] std::uint32_t count(Block block) const {
        return static_cast<std::uint32_t>(header_.blocks[static_cast<std::size_t>(block)].count);
    }
    [[nodiscard]] const SegmentHeader& header() const { return header_; }
    [[nodiscard]] std::uint32_t owner_uid() const { return owner_uid_; }
    [[nodiscard]] SegmentError take_error() { return std::move(error_); }

  private:
    bool fail(Kind kind, std::string_view what) {
        error_ = {kind, path_ + " " + std::string(what)};
        return false;
    }
    [[nodiscard]] bool check_shape(std::uint64_t file_bytes);
    [[nodiscard]] bool read_at(std::uint64_t offset, std::span<std::uint64_t> words);

    const std::string& path_;
    Owners owners_;
    int descriptor_;
    std::uint32_t owner_uid_{0};
    SegmentHeader header_;
    SegmentError error_;
};

bool OpenSegment::read_at(std::uint64_t offset, std::span<std::uint64_t> words) {
    char* target = reinterpret_cast<char*>(words.data());
    std::size_t left = words.size_bytes();
    while (left > 0) {
        const ssize_t size = ::pread(descriptor_, target, left, static_cast<off_t>(offset));
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size < 0) {
            return fail(Kind::system, std::string("cannot be read (") + std::strerror(errno) + ")");
        }
        if (size == 0) {
            return fail(Kind::truncated,
                        "is shorter than its header says; if no relay runs, remove it");
        }
        target += size;
        left -= static_cast<std::size_t>(size);
        offset += static_cast<std::uint64_t>(size);
    }
    return true;
}

bool OpenSegment::check_header() {
    if (descriptor_ < 0) {
        switch (errno) {
            case ENOENT:
            case ENOTDIR:
                return fail(Kind::missing,
                            "does not exist: no relay of this server-id runs on this machine, or "
                            "it was started with --stats off");
            case EACCES:
            case EPERM:
                return fail(Kind::not_permitted,
                            "may not be read by this user; join the group of the file, or start "
                            "the relay with --stats-group");
            case ELOOP:
                return fail(Kind::not_a_segment,
                            "is a symbolic link; name the file that it leads to");
            default:
                return fail(Kind::system,
                            std::string("cannot be opened (") + std::strerror(errno) + ")");
        }
    }
    struct stat status{};
    if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
        return fail(Kind::not_a_segment, "is not a regular file; name a relay's segment");
    }
    owner_uid_ = status.st_uid;
    if (owners_ == Owners::relays && !is_relay_user(status.st_uid)) {
        return fail(Kind::stranger,
                    "belongs to " + user_text(status.st_uid) + ", not to root, " + relay_user_name +
                        " or this program's user, so it is not believed; if it is a relay's all "
                        "the same, name the file: --relay " +
                        path_);
    }
    const auto file_bytes = static_cast<std::uint64_t>(status.st_size);
    std::array<std::uint64_t, sizeof(SegmentHeader) / word_bytes> words{};
    const std::size_t at_hand = std::min<std::size_t>(file_bytes / word_bytes, words.size());
    if (!read_at(0, std::span(words).first(at_hand))) {
        return false;
    }
    std::memcpy(static_cast<void*>(&header_), words.data(), sizeof header_);
    if (header_.magic != segment_magic) {
        return fail(Kind::not_a_segment, "is not a relay's statistics; name a relay's segment");
    }
    if (header_.byte_order != segment_byte_order) {
        return fail(Kind::byte_order,
                    "was written by a machine of another byte order; read it on that machine");
    }
    if (header_.version != segment_version) {
        return fail(Kind::version, "has layout version " + std::to_string(header_.version) +
                                       ", this program reads version " +
                                       std::to_string(segment_version) +
                                       "; use the program that came with the relay");
    }
    if (header_.schema_hash != schema_hash()) {
        return fail(Kind::version,
                    "has other tables of counters than this program; use the program that came "
                    "with the relay");
    }
    return check_shape(file_bytes);
}

bool OpenSegment::check_shape(std::uint64_t file_bytes) {
    const SegmentShape shape{.worker_count = header_.stream_worker_count,
                             .tunnel_capacity = header_.tunnel_capacity,
                             .packet = {.worker_count = header_.packet_worker_count,
                                        .port_count = count(Block::port_counters)}};
    SegmentHeader expected;
    if (shape.worker_count == 0 || shape.worker_count > max_workers ||
        shape.packet.worker_count > max_workers || shape.packet.port_count > max_packet_ports ||
        shape.tunnel_capacity == 0 || shape.tunnel_capacity > max_tunnels) {
        return fail(Kind::damaged,
                    "has a header with impossible counts; if no relay runs, "
                    "remove it");
    }
    lay_out(shape, expected);
    const auto same = [](const BlockPlace& left, const BlockPlace& right) {
        return left.offset == right.offset && left.stride_bytes == right.stride_bytes &&
               left.count == right.count;
    };
    if (header_.segment_bytes != expected.segment_bytes ||
        !std::equal(header_.blocks.begin(), header_.blocks.end(), expected.blocks.begin(), same) ||
        header_.tunnel_rows_used.load(std::memory_order_relaxed) > shape.tunnel_capacity) {
        return fail(Kind::damaged,
                    "has a header that contradicts itself; if no relay runs, "
                    "remove it");
    }
    if (file_bytes < header_.segment_bytes) {
        return fail(Kind::truncated, "is cut short: " + std::to_string(file_bytes) + " bytes of " +
                                         std::to_string(header_.segment_bytes) +
                                         "; if no relay runs, remove it");
    }
    return true;
}

bool OpenSegment::writer_alive() const {
    // Asks who holds the lock and takes none.
    struct flock whole{};
    whole.l_type = F_RDLCK;
    whole.l_whence = SEEK_SET;
    return ::fcntl(descriptor_, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
}

// ---- Tunnels

[[nodiscard]] bool held_still(std::span<const std::uint64_t> before,
                              std::span<const std::uint64_t> after) {
    // The visitors' words behind the description may change at any time.
    constexpr std::size_t guarded = sizeof(Sequenced<TunnelDescription>) / word_bytes;
    return before[0] % 2 == 0 &&
           std::equal(before.begin(), before.begin() + guarded, after.begin());
}

// A counter since the tunnel began. A row never holds less than at its tunnel's start, but a
// damaged segment may.
void subtract(CounterValues<TunnelCounter>& counters, const TunnelSums& baseline) {
    for (std::size_t index = 0; index < baseline.size(); ++index) {
        std::uint64_t& value = counters.values[index];
        value -= std::min(value, baseline[index]);
    }
}

// Rows of counters from row `first_row` on, added up over the writers of either engine: one writer
// after the other, so that a file made up of nothing but size costs no memory for each of them.
// `rows` is scratch; all three are as long.
[[nodiscard]] bool add_up(OpenSegment& segment, std::size_t first_row,
                          std::span<std::uint64_t> rows, std::span<std::uint64_t> stream,
                          std::span<std::uint64_t> packet) {
    std::ranges::fill(stream, 0);
    std::ranges::fill(packet, 0);
    for (std::uint32_t writer = 0; writer < segment.count(Block::tunnel_rows); ++writer) {
        if (!segment.read(Block::tunnel_rows, writer, rows, first_row * row_words)) {
            return false;
        }
        const auto sums = writer < segment.header().stream_worker_count ? stream : packet;
        for (std::size_t index = 0; index < rows.size(); ++index) {
            sums[index] += rows[index];
        }
    }
    return true;
}

TunnelSnapshot tunnel_of(std::uint32_t row_index, std::span<const std::uint64_t> description,
                         std::span<const std::uint64_t> stream,
                         std::span<const std::uint64_t> packet) {
    TunnelSnapshot tunnel;
    tunnel.row_index = row_index;
    std::memcpy(static_cast<void*>(&tunnel.description), &description[1],
                sizeof tunnel.description);
    tunnel.visitors_pending = description[description_words - 2];
    tunnel.visitors_live = description[description_words - 1];
    std::ranges::copy(stream.first(tunnel_counter_count), tunnel.stream.values.begin());
    std::ranges::copy(packet.first(tunnel_counter_count), tunnel.packet.values.begin());
    subtract(tunnel.stream, tunnel.description.stream_baseline);
    subtract(tunnel.packet, tunnel.description.packet_baseline);
    return tunnel;
}

// A row that did not hold still, by itself until it does; nothing when it never does.
std::expected<std::optional<TunnelSnapshot>, SegmentError> read_torn(OpenSegment& segment,
                                                                     std::uint32_t row_index) {
    std::array<std::uint64_t, description_words> before;
    std::array<std::uint64_t, description_words> after;
    std::array<std::uint64_t, row_words> row;
    std::array<std::uint64_t, row_words> stream;
    std::array<std::uint64_t, row_words> packet;
    for (int attempt = 0; attempt < torn_row_attempts; ++attempt) {
        if (!segment.read(Block::tunnel_descriptions, row_index, before) ||
            !add_up(segment, row_index, row, stream, packet) ||
            !segment.read(Block::tunnel_descriptions, row_index, after)) {
            return std::unexpected(segment.take_error());
        }
        if (held_still(before, after)) {
            return tunnel_of(row_index, after, stream, packet);
        }
    }
    return std::nullopt;
}

std::expected<void, SegmentError> read_tunnels(OpenSegment& segment, SegmentBuffers& buffers,
                                               Snapshot& snapshot) {
    const std::size_t used = segment.header().tunnel_rows_used.load(std::memory_order_relaxed);
    buffers.before.resize(used * description_words);
    buffers.after.resize(used * description_words);
    for (Words* words : {&buffers.rows, &buffers.stream, &buffers.packet}) {
        words->resize(used * row_words);
    }
    if (!segment.read(Block::tunnel_descriptions, 0, buffers.before) ||
        !add_up(segment, 0, buffers.rows, buffers.stream, buffers.packet) ||
        !segment.read(Block::tunnel_descriptions, 0, buffers.after)) {
        return std::unexpected(segment.take_error());
    }
    snapshot.tunnels.reserve(used);
    for (std::uint32_t index = 0; index < used; ++index) {
        const auto of_row = [index](const Words& words) {
            return std::span(words).subspan(index * description_words, description_words);
        };
        const auto counters_of_row = [index](const Words& words) {
            return std::span(words).subspan(index * row_words, row_words);
        };
        if (held_still(of_row(buffers.before), of_row(buffers.after))) {
            snapshot.tunnels.push_back(tunnel_of(index, of_row(buffers.after),
                                                 counters_of_row(buffers.stream),
                                                 counters_of_row(buffers.packet)));
            continue;
        }
        auto again = read_torn(segment, index);
        if (!again) {
            return std::unexpected(again.error());
        }
        if (*again) {
            snapshot.tunnels.push_back(**again);
        } else {
            ++snapshot.torn_row_count;
        }
    }
    return {};
}

// ---- The other blocks

base::Nanoseconds age(base::Nanoseconds now, std::uint64_t heartbeat, std::uint64_t started) {
    const std::uint64_t latest = std::max(heartbeat, started);
    return now > latest ? now - latest : 0;
}

[[nodiscard]] bool read_configuration(OpenSegment& segment, std::string& text) {
    constexpr std::size_t words_before_text = 2;  // sequence, size_bytes
    Words before(sizeof(ConfigurationBlock) / word_bytes);
    std::array<std::uint64_t, 1> after{};
    for (int attempt = 0; attempt < torn_row_attempts; ++attempt) {
        if (!segment.read(Block::configuration, 0, before) ||
            !segment.read(Block::configuration, 0, after)) {
            return false;
        }
        if (before[0] % 2 == 0 && before[0] == after[0]) {
            text.assign(reinterpret_cast<const char*>(&before[words_before_text]),
                        std::min<std::size_t>(before[1], max_configuration_bytes));
            return true;
        }
    }
    return true;  // never held still: left out
}

[[nodiscard]] bool read_workers(OpenSegment& segment, Snapshot& snapshot) {
    const std::uint64_t started = snapshot.identity.started_monotonic_ns;
    snapshot.workers.resize(segment.count(Block::worker_counters));
    for (std::uint32_t index = 0; index < snapshot.workers.size(); ++index) {
        WorkerSnapshot& worker = snapshot.workers[index];
        if (!segment.read_counters(Block::worker_counters, index, worker.counters) ||
            !segment.read_plain(Block::worker_histograms, index, worker.histograms)) {
            return false;
        }
        worker.heartbeat_age_ns =
            age(snapshot.taken_at, worker.counters.get(WorkerCounter::heartbeat_ns), started);
    }
    return true;
}

[[nodiscard]] bool read_packet_engine(OpenSegment& segment, Snapshot& snapshot) {
    const std::uint64_t started = snapshot.identity.started_monotonic_ns;
    snapshot.packet_workers.resize(segment.count(Block::packet_worker_counters));
    for (std::uint32_t index = 0; index < snapshot.packet_workers.size(); ++index) {
        PacketWorkerSnapshot& worker = snapshot.packet_workers[index];
        if (!segment.read_counters(Block::packet_worker_counters, index, worker.counters) ||
            !segment.read_plain(Block::packet_worker_histograms, index, worker.histograms)) {
            return false;
        }
        worker.heartbeat_age_ns =
            age(snapshot.taken_at, worker.counters.get(PacketWorkerCounter::packet_heartbeat_ns),
                started);
    }
    if (!snapshot.packet_workers.empty()) {
        SlowPathSnapshot& slow_path = snapshot.slow_path.emplace();
        if (!segment.read_counters(Block::slow_path_counters, 0, slow_path.counters) ||
            !segment.read_plain(Block::slow_path_histograms, 0, slow_path.histograms)) {
            return false;
        }
        slow_path.heartbeat_age_ns =
            age(snapshot.taken_at, slow_path.counters.get(SlowPathCounter::slow_path_heartbeat_ns),
                started);
    }
    snapshot.ports.resize(segment.count(Block::port_counters));
    for (std::uint32_t index = 0; index < snapshot.ports.size(); ++index) {
        PortDescription description;
        if (!segment.read_counters(Block::port_counters, index, snapshot.ports[index].counters) ||
            !segment.read_plain(Block::port_descriptions, index, description)) {
            return false;
        }
        snapshot.ports[index].name = text_of(description.name);
    }
    return true;
}

[[nodiscard]] bool read_relay(OpenSegment& segment, Snapshot& snapshot) {
    return segment.read_plain(Block::identity, 0, snapshot.identity) &&
           read_configuration(segment, snapshot.configuration) &&
           segment.read_counters(Block::control_counters, 0, snapshot.control) &&
           segment.read_plain(Block::control_histograms, 0, snapshot.control_histograms) &&
           read_workers(segment, snapshot) && read_packet_engine(segment, snapshot);
}

}  // namespace

std::string segment_path(std::string_view name) {
    if (name.find('/') != std::string_view::npos) {
        return std::string(name);
    }
    return std::string(segment_directory) + "/" + std::string(segment_prefix) + std::string(name);
}

SegmentList list_segments(std::string_view directory) {
    SegmentList list;
    const std::unique_ptr<DIR, int (*)(DIR*)> opened(::opendir(std::string(directory).c_str()),
                                                     &::closedir);
    if (!opened) {
        return list;
    }
    while (const dirent* entry = ::readdir(opened.get())) {
        struct stat status{};
        if (!std::string_view(entry->d_name).starts_with(segment_prefix) ||
            ::fstatat(::dirfd(opened.get()), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
            continue;  // another file, or one that has gone meanwhile
        }
        if (is_relay_user(status.st_uid)) {
            list.paths.push_back(std::string(directory) + "/" + entry->d_name);
        } else {
            ++list.stranger_count;
        }
    }
    std::ranges::sort(list.paths);
    return list;
}

std::expected<Snapshot, SegmentError> SegmentReader::read() {
    OpenSegment segment(path_, owners_);
    if (!segment.check_header()) {
        return std::unexpected(segment.take_error());
    }
    Snapshot snapshot;
    snapshot.path = path_;
    snapshot.owner_uid = segment.owner_uid();
    snapshot.instance_id = segment.header().instance_id;
    snapshot.segment_bytes = segment.header().segment_bytes;
    snapshot.tunnel_capacity = segment.header().tunnel_capacity;
    snapshot.taken_at = base::monotonic_now();
    snapshot.writer_alive = segment.writer_alive();
    if (!read_relay(segment, snapshot)) {
        return std::unexpected(segment.take_error());
    }
    const std::uint64_t latest =
        std::max(snapshot.control.get(ControlCounter::control_heartbeat_ns),
                 snapshot.identity.started_monotonic_ns);
    if (!snapshot.writer_alive || snapshot.taken_at > latest + stale_after_ns) {
        snapshot.stale_since = latest;
    }
    if (auto read = read_tunnels(segment, buffers_, snapshot); !read) {
        return std::unexpected(read.error());
    }
    return snapshot;
}

}  // namespace bore::abi
