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
    std::optional<std::string> group;  // that may read it; nothing: the group of the user
    // Whose the file is to be: the user that the process will become. Nothing: its present one.
    std::optional<std::string> user;
    std::string directory;  // where the file is; empty: segment_directory
};

// Why a segment did not get its name.
struct PublishError {
    // Somebody else on the machine may be behind it, who must not keep a relay from starting: it
    // can run on, with statistics that nobody sees.
    bool by_another_user{false};
    std::string sentence;  // names the file, who has it, and the remedy
};

class SegmentMemory {
  public:
    // Zero pages that cost nothing until they are touched.
    [[nodiscard]] static SegmentMemory anonymous(std::size_t size_bytes);
    // A file without a name, mode 0640, with all of its memory taken from the system now: a full
    // /dev/shm shows here and not as SIGBUS later. What is under the name and belongs to somebody
    // else than `user` is removed where that is permitted and no live relay holds its lock, for the
    // process may give up the right to later. The error is a sentence with a remedy.
    [[nodiscard]] static std::expected<SegmentMemory, std::string> shared(
        const SegmentOptions& options, std::size_t size_bytes);

    SegmentMemory(SegmentMemory&& other) noexcept;
    SegmentMemory& operator=(SegmentMemory&& other) = delete;
    // Takes the name away again.
    ~SegmentMemory();

    // Gives the file its name, in place of what a dead relay left under it. Refuses when a live one
    // holds it, or when what is there is another user's and either locked or not to be removed
    // (/dev/shm is sticky: only root may). Does nothing for anonymous memory.
    [[nodiscard]] std::expected<void, PublishError> publish();

    [[nodiscard]] std::byte* data() const { return data_; }
    [[nodiscard]] std::size_t size_bytes() const { return size_bytes_; }
    // Empty for anonymous memory.
    [[nodiscard]] const std::string& path() const { return path_; }
    // Whose file shared() removed: "user foo (uid 1001)". Empty: none.
    [[nodiscard]] const std::string& removed_of() const { return removed_of_; }

  private:
    SegmentMemory(std::byte* data, std::size_t size_bytes, int descriptor, std::string path)
        : data_(data), size_bytes_(size_bytes), descriptor_(descriptor), path_(std::move(path)) {}

    std::byte* data_;
    std::size_t size_bytes_;
    int descriptor_;
    std::string path_;
    std::string removed_of_;
    bool published_{false};
};

}  // namespace bore::abi
