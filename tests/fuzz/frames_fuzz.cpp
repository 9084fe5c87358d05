// Frames of any stream, split anywhere: the reader must agree with a naive model that sees the
// whole stream at once, and hand over exactly the bytes behind the frame where it is told to stop.
// Input: size n of the splitting table, n split sizes of 1 to 511 bytes, index of the frame to stop
// at, the stream.
#include <cstdint>
#include <string>
#include <vector>

#include "controlplane/bore/frame.hpp"
#include "dataplane/base/check.hpp"
#include "tests/fuzz/fuzz_input.hpp"

namespace {

using bore::protocol::FrameReader;
using Status = FrameReader::Status;

struct Outcome {
    std::vector<std::string> frames;
    Status last = Status::end;
    std::string leftover;  // from the stop on, whatever was fed later included
};

Outcome model(const std::string& stream, std::size_t stop_after) {
    Outcome outcome;
    std::size_t at = 0;
    while (outcome.frames.size() < stop_after) {
        const std::size_t nul = stream.find('\0', at);
        const std::size_t length = (nul == std::string::npos ? stream.size() : nul) - at;
        if (length > bore::protocol::max_frame_body_bytes) {
            outcome.last = Status::too_long;
            return outcome;
        }
        if (nul == std::string::npos) {
            if (length > 0) {
                outcome.frames.push_back(stream.substr(at));
            }
            return outcome;
        }
        outcome.frames.push_back(stream.substr(at, length));
        at = nul + 1;
    }
    outcome.leftover = stream.substr(at);
    return outcome;
}

Outcome split_reading(const std::string& stream, const std::vector<std::size_t>& sizes,
                      std::size_t stop_after) {
    Outcome outcome;
    FrameReader reader;
    std::size_t at = 0;
    for (std::size_t turn = 0; at < stream.size(); ++turn) {
        const std::string piece = stream.substr(at, sizes[turn % sizes.size()]);
        at += piece.size();
        reader.feed(piece);
        for (;;) {
            if (outcome.frames.size() == stop_after) {
                outcome.leftover = std::string{reader.take_leftover()} + stream.substr(at);
                return outcome;
            }
            const auto result = reader.next();
            if (result.status == Status::too_long) {
                BORE_CHECK(reader.next().status == Status::too_long, "the error must stay");
                outcome.last = Status::too_long;
                return outcome;
            }
            if (result.status == Status::need_more) {
                BORE_CHECK(reader.take_leftover().empty(), "need_more with bytes left");
                break;
            }
            outcome.frames.emplace_back(result.json);
        }
    }
    if (outcome.frames.size() < stop_after) {
        const auto result = reader.finish();
        if (result.status == Status::frame) {
            outcome.frames.emplace_back(result.json);
        }
        outcome.last = reader.finish().status;
    }
    return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bore::fuzz::Input input{data, size};
    std::vector<std::size_t> sizes(1 + input.below(8));
    for (std::size_t& piece_size : sizes) {
        piece_size = 1 + std::size_t{input.byte()} * 2;
    }
    const std::size_t stop_after = 1 + input.below(16);
    const std::string stream = input.rest();

    const Outcome expected = model(stream, stop_after);
    const Outcome actual = split_reading(stream, sizes, stop_after);
    BORE_CHECK(actual.frames == expected.frames, "frames differ from the model's");
    BORE_CHECK(actual.last == expected.last, "the end differs from the model's");
    BORE_CHECK(actual.leftover == expected.leftover, "left-over bytes differ from the model's");
    return 0;
}
