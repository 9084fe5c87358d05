// The memory of the statistics: a POSIX shared-memory file that readers find by its name, or
// anonymous pages that nobody else sees.
//
// A segment begins as a file without a name. publish() gives it its name, once everything in it is
// written, so that no reader ever sees half of one. Its lock (F_OFD_SETLK on the whole file) is
// held for as long as the relay lives; the kernel takes it back however the relay ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>

namespace bore::abi {

struct SegmentOptions {
    std::string name;                  // of the file: segment_prefix + server id
    std::optional<std::string> group;  // that may read it; nothing: the group of the process
    std::string directory;             // where the file is; empty: segment_directory
};

class SegmentMemory {
  public:
    // Zero pages that cost nothing until they are touched.
    [[nodiscard]] static SegmentMemory anonymous(std::size_t size_bytes);
    // A file without a name, mode 0640, with all of its memory taken from the system now: a full
    // /dev/shm shows here and not as SIGBUS later. The error is a sentence with a remedy.
    [[nodiscard]] static std::expected<SegmentMemory, std::string> shared(
        const SegmentOptions& options, std::size_t size_bytes);

    SegmentMemory(SegmentMemory&& other) noexcept;
    SegmentMemory& operator=(SegmentMemory&& other) = delete;
    // Takes the name away again.
    ~SegmentMemory();

    // Gives the file its name, in place of what a dead relay left under it. Refuses when a live one
    // holds it. Does nothing for anonymous memory.
    [[nodiscard]] std::expected<void, std::string> publish();

    [[nodiscard]] std::byte* data() const { return data_; }
    [[nodiscard]] std::size_t size_bytes() const { return size_bytes_; }
    // Empty for anonymous memory.
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    SegmentMemory(std::byte* data, std::size_t size_bytes, int descriptor, std::string path)
        : data_(data), size_bytes_(size_bytes), descriptor_(descriptor), path_(std::move(path)) {}

    std::byte* data_;
    std::size_t size_bytes_;
    int descriptor_;
    std::string path_;
    bool published_{false};
};

}  // namespace bore::abi
