// Reads a relay's segment: for the exporter, borectl and tests. Never writes, locks or maps it.
//
//     abi::SegmentReader reader("default");          // a server id, or a path
//     auto snapshot = reader.read();                 // again and again
//     if (!snapshot) { say(snapshot.error().text); }
//
// Every read() opens the file by its name, so that a relay that was started again is simply the
// next snapshot, with another instance_id. It copies by pread(2): a file that was cut short gives
// an error where a mapping would give SIGBUS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/abi/snapshot.hpp"

namespace bore::abi {

struct SegmentError {
    enum class Kind : std::uint8_t {
        missing,        // no file of this name: no relay, or one with --stats off
        not_permitted,  // the file may not be read
        not_a_segment,  // something else is in the file
        byte_order,     // written by a machine of the other byte order
        version,        // another layout version, or other tables
        truncated,      // shorter than its header says
        damaged,        // its header contradicts itself
        system,         // another error of the system
    };
    Kind kind{Kind::system};
    std::string text;  // names file, what is wrong and the remedy
};

// A heartbeat older than this stands still; loops beat at least once a second.
inline constexpr base::Nanoseconds stale_after_ns = 3 * base::second_ns;

// `server_id`, or a path when it has a slash.
[[nodiscard]] std::string segment_path(std::string_view name);
// Paths of all segments on this machine, sorted; what cannot be read is among them.
[[nodiscard]] std::vector<std::string> list_segments(
    std::string_view directory = segment_directory);

// Copies of the tunnels' rows; kept between reads, so that their pages are.
struct SegmentBuffers {
    std::vector<std::uint64_t> before;
    std::vector<std::uint64_t> after;
    std::vector<std::uint64_t> rows;    // of one writer
    std::vector<std::uint64_t> stream;  // sums over the writers of either engine
    std::vector<std::uint64_t> packet;
};

class SegmentReader {
  public:
    explicit SegmentReader(std::string_view name) : path_(segment_path(name)) {}

    [[nodiscard]] std::expected<Snapshot, SegmentError> read();
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
    SegmentBuffers buffers_;
};

}  // namespace bore::abi
