// Wire-protocol §2, byte by byte: where a frame ends, how long it may be, how it may be split, and
// whose the bytes behind the last frame are.
#include "controlplane/bore/frame.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bore::protocol {
namespace {

using Status = FrameReader::Status;
using namespace std::string_literals;

// What a reader makes of a stream that arrives in the given pieces and then ends.
struct Reading {
    std::vector<std::string> frames;
    Status last;  // too_long or end

    bool operator==(const Reading&) const = default;
};

Reading read_all(const std::vector<std::string>& pieces) {
    FrameReader reader;
    Reading reading{{}, Status::end};
    for (const std::string& piece : pieces) {
        reader.feed(piece);
        for (;;) {
            const auto result = reader.next();
            if (result.status == Status::too_long) {
                reading.last = Status::too_long;
                return reading;
            }
            if (result.status == Status::need_more) {
                break;
            }
            reading.frames.emplace_back(result.json);
        }
    }
    auto result = reader.finish();
    if (result.status == Status::frame) {
        reading.frames.emplace_back(result.json);
        result = reader.finish();
    }
    reading.last = result.status;
    return reading;
}

std::vector<std::string> split_every(const std::string& stream, std::size_t size) {
    std::vector<std::string> pieces;
    for (std::size_t at = 0; at < stream.size(); at += size) {
        pieces.push_back(stream.substr(at, size));
    }
    return pieces;
}

TEST(Frame, of_256_bytes_is_accepted) {
    const std::string body(256, 'x');
    EXPECT_EQ(read_all({body + '\0'}), (Reading{{body}, Status::end}));
    EXPECT_EQ(read_all(split_every(body + '\0', 1)), (Reading{{body}, Status::end}));
    EXPECT_EQ(read_all({body, "\0"s}), (Reading{{body}, Status::end}));
}

TEST(Frame, of_257_bytes_fails_although_its_nul_is_there) {
    EXPECT_EQ(read_all({std::string(257, 'x') + '\0'}), (Reading{{}, Status::too_long}));
}

TEST(Frame, of_257_bytes_fails_at_once_without_waiting_for_the_nul) {
    for (std::size_t first = 1; first < 257; ++first) {
        FrameReader reader;
        const std::string head(first, 'x');
        const std::string tail(257 - first, 'x');
        reader.feed(head);
        EXPECT_EQ(reader.next().status, Status::need_more);
        reader.feed(tail);
        EXPECT_EQ(reader.next().status, Status::too_long) << first;
        EXPECT_EQ(reader.next().status, Status::too_long) << "the error stays";
        EXPECT_EQ(reader.take_leftover(), "");
    }
}

TEST(Frame, of_256_bytes_without_nul_still_waits) {
    FrameReader reader;
    const std::string body(256, 'x');
    reader.feed(body);
    EXPECT_EQ(reader.next().status, Status::need_more);
    EXPECT_EQ(reader.finish().json, body);
}

TEST(Frame, limit_counts_from_the_previous_nul) {
    const std::string body(256, 'y');
    EXPECT_EQ(read_all({"a\0"s + body + "\0"s + body + "\0"s}),
              (Reading{{"a", body, body}, Status::end}));
    EXPECT_EQ(read_all({"a\0"s + body + "z\0"s}), (Reading{{"a"}, Status::too_long}));
}

TEST(Frame, three_in_one_segment_come_out_one_by_one) {
    EXPECT_EQ(read_all({"{\"Hello\":0}\0null\0\"Heartbeat\"\0"s}),
              (Reading{{"{\"Hello\":0}", "null", "\"Heartbeat\""}, Status::end}));
}

TEST(Frame, split_at_every_byte_is_the_same) {
    const std::string stream =
        "{\"Hello\":0}\0\0"s + std::string(256, 'x') + "\0{\"Accept\":1}\0tail"s;
    const Reading whole = read_all({stream});
    EXPECT_EQ(whole.frames.size(), 5U);
    for (std::size_t at = 1; at < stream.size(); ++at) {
        EXPECT_EQ(read_all({stream.substr(0, at), stream.substr(at)}), whole) << at;
    }
    for (std::size_t size = 1; size < stream.size(); ++size) {
        EXPECT_EQ(read_all(split_every(stream, size)), whole) << size;
    }
}

TEST(Frame, lone_nul_is_an_empty_frame) {
    EXPECT_EQ(read_all({"\0"s}), (Reading{{""}, Status::end}));
    EXPECT_EQ(read_all({"\0\0"s}), (Reading{{"", ""}, Status::end}));
}

TEST(Frame, without_nul_before_the_end_of_the_stream_is_a_last_frame) {
    EXPECT_EQ(read_all({"{\"Hello\":0}"}), (Reading{{"{\"Hello\":0}"}, Status::end}));
    EXPECT_EQ(read_all({"a\0{\"Hel"s, "lo\":0}"}), (Reading{{"a", "{\"Hello\":0}"}, Status::end}));
    EXPECT_EQ(read_all({" "}), (Reading{{" "}, Status::end}));
}

TEST(Frame, end_of_an_empty_stream_is_the_end) {
    EXPECT_EQ(read_all({}), (Reading{{}, Status::end}));
    EXPECT_EQ(read_all({"a\0"s}), (Reading{{"a"}, Status::end}));
    EXPECT_EQ(read_all({"a", "\0"s}), (Reading{{"a"}, Status::end}));
}

TEST(Frame, whole_in_one_read_is_not_copied) {
    FrameReader reader;
    const std::string stream = "{\"Hello\":0}\0"s;
    reader.feed(stream);
    EXPECT_EQ(reader.next().json.data(), stream.data());
}

TEST(Frame, bytes_behind_the_last_one_are_handed_over_untouched) {
    const std::string raw = "\0\x01GET / HTTP/1.1\r\n\0"s + std::string(3000, '\xff');
    for (const std::string& head : {"{\"Accept\":1}"s, ""s, std::string(256, 'x')}) {
        std::string stream = head;
        stream += '\0';
        stream += raw;
        for (std::size_t at = 0; at <= head.size(); ++at) {
            FrameReader reader;
            const std::string first = stream.substr(0, at);
            const std::string second = stream.substr(at);
            reader.feed(first);
            ASSERT_EQ(reader.next().status, Status::need_more);
            reader.feed(second);
            ASSERT_EQ(reader.next().json, head);
            EXPECT_EQ(reader.take_leftover(), raw);
            EXPECT_EQ(reader.take_leftover(), "") << "they are given away once";
        }
    }
}

TEST(Frame, read_goes_on_after_the_leftover_was_taken) {
    FrameReader reader;
    const std::string first = "a\0rest"s;
    reader.feed(first);
    EXPECT_EQ(reader.next().json, "a");
    EXPECT_EQ(reader.take_leftover(), "rest");
    const std::string second = "b\0"s;
    reader.feed(second);
    EXPECT_EQ(reader.next().json, "b");
}

TEST(Frame, feeding_over_unused_bytes_is_a_broken_invariant) {
    FrameReader reader;
    reader.feed("a");
    EXPECT_DEATH(reader.feed("b"), "frame reader that still has some");
    EXPECT_DEATH((void)reader.finish(), "before its input was used up");
}

}  // namespace
}  // namespace bore::protocol
