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
#include <utility>
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
        stranger,       // the file is a user's who runs no relay of ours
    };
    Kind kind{Kind::system};
    std::string text;  // names file, what is wrong and the remedy
};

// A heartbeat older than this stands still; loops beat at least once a second.
inline constexpr base::Nanoseconds stale_after_ns = 3 * base::second_ns;

// Whose segments are believed (segment_owner.hpp).
enum class Owners : std::uint8_t {
    relays,   // those who may run a relay
    anybody,  // a person has named the very file
};

// `server_id`, or a path when it has a slash.
[[nodiscard]] std::string segment_path(std::string_view name);

struct SegmentList {
    std::vector<std::string> paths;  // sorted; what cannot be read is among them
    std::size_t stranger_count{0};   // files so named of users who run no relay: left out
};
// The segments on this machine. Costs a system call for each file that is named like one.
[[nodiscard]] SegmentList list_segments(std::string_view directory = segment_directory);

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
    // A server id, whose segment must be a relay's; or a path, which is read whoever owns it.
    explicit SegmentReader(std::string_view name)
        : SegmentReader(segment_path(name), name.find('/') == std::string_view::npos
                                                ? Owners::relays
                                                : Owners::anybody) {}
    SegmentReader(std::string path, Owners owners) : path_(std::move(path)), owners_(owners) {}

    [[nodiscard]] std::expected<Snapshot, SegmentError> read();
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
    Owners owners_;
    SegmentBuffers buffers_;
};

}  // namespace bore::abi
