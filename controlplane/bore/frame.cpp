// See frame.hpp.
#include "controlplane/bore/frame.hpp"

#include <algorithm>
#include <utility>

#include "dataplane/base/check.hpp"

namespace bore::protocol {

void FrameReader::feed(std::string_view input) {
    BORE_CHECK(input_.empty(), "bytes were fed to a frame reader that still has some");
    input_ = input;
}

FrameReader::Result FrameReader::next() {
    if (failed_) {
        return {Status::too_long, {}};
    }
    if (std::exchange(kept_is_returned_, false)) {
        kept_bytes_ = 0;
    }
    // The originals look for the NUL in the first 257 bytes and fail when it is not there.
    const std::size_t room = max_frame_wire_bytes - kept_bytes_;
    const std::string_view window = input_.substr(0, room);
    const std::size_t end = window.find('\0');
    const std::string_view part = window.substr(0, end);  // npos: all of it
    if (end == std::string_view::npos && window.size() == room) {
        failed_ = true;
        input_ = {};
        return {Status::too_long, {}};
    }
    if (end != std::string_view::npos && kept_bytes_ == 0) {
        input_.remove_prefix(end + 1);
        return {Status::frame, part};
    }
    std::copy(part.begin(), part.end(), kept_.begin() + kept_bytes_);
    kept_bytes_ = static_cast<std::uint16_t>(kept_bytes_ + part.size());
    if (end == std::string_view::npos) {
        input_ = {};
        return {Status::need_more, {}};
    }
    input_.remove_prefix(end + 1);
    kept_is_returned_ = true;
    return {Status::frame, {kept_.data(), kept_bytes_}};
}

FrameReader::Result FrameReader::finish() {
    BORE_CHECK(input_.empty(), "a frame reader was finished before its input was used up");
    if (failed_) {
        return {Status::too_long, {}};
    }
    if (kept_is_returned_ || kept_bytes_ == 0) {
        return {Status::end, {}};
    }
    kept_is_returned_ = true;
    return {Status::frame, {kept_.data(), kept_bytes_}};
}

std::string_view FrameReader::take_leftover() {
    return std::exchange(input_, {});
}

}  // namespace bore::protocol
