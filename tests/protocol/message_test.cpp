// Wire-protocol §3: every message byte for byte, the leniency of §2 that is kept and the rest that
// is refused, and how Error texts are cut.
#include "controlplane/bore/message.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace bore::protocol {
namespace {

using namespace std::string_literals;

constexpr Uuid visitor{{0xf4, 0x7a, 0xc1, 0x0b, 0x58, 0xcc, 0x43, 0x72, 0xa5, 0x67, 0x0e, 0x02,
                        0xb2, 0xc3, 0xd4, 0x79}};
constexpr Uuid challenge{{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x46, 0x77, 0x88, 0x99, 0xaa, 0xbb,
                          0xcc, 0xdd, 0xee, 0xff}};

std::string body(const EncodedFrame& frame) {
    std::string text{frame.view()};
    EXPECT_TRUE(text.ends_with('\0'));
    text.pop_back();
    return text;
}

TEST(Message, is_written_byte_for_byte_as_the_table_says) {
    EXPECT_EQ(encode_hello(0).view(), "\x7b\x22\x48\x65\x6c\x6c\x6f\x22\x3a\x30\x7d\x00"s);
    EXPECT_EQ(encode_hello(34185).view(), "{\"Hello\":34185}\0"s);
    EXPECT_EQ(encode_hello(34185).view().size(), 16U);
    EXPECT_EQ(encode_hello(65535).view(), "{\"Hello\":65535}\0"s);
    EXPECT_EQ(encode_challenge(challenge).view(),
              "{\"Challenge\":\"00112233-4455-4677-8899-aabbccddeeff\"}\0"s);
    EXPECT_EQ(encode_challenge(challenge).view().size(), 53U);
    EXPECT_EQ(heartbeat_frame, "\x22\x48\x65\x61\x72\x74\x62\x65\x61\x74\x22\x00"s);
    EXPECT_EQ(encode_connection(visitor).view(),
              "{\"Connection\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"}\0"s);
    EXPECT_EQ(encode_connection(visitor).view().size(), connection_frame_bytes);
    EXPECT_EQ(encode_accept(visitor).view(),
              "{\"Accept\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"}\0"s);
    EXPECT_EQ(encode_accept(visitor).view().size(), 50U);
    EXPECT_EQ(encode_error("invalid secret").view(), "{\"Error\":\"invalid secret\"}\0"s);
    EXPECT_EQ(encode_error("invalid secret").view().size(), 27U);
    EXPECT_EQ(encode_authenticate(std::string(64, 'a'))->view().size(), 84U);
    EXPECT_EQ(encode_authenticate("tk_" + std::string(64, 'a'))->view(),
              "{\"Authenticate\":\"tk_"s + std::string(64, 'a') + "\"}\0"s);
}

TEST(Message, connections_of_a_burst_lie_side_by_side) {
    std::array<char, 2 * connection_frame_bytes> burst;
    const std::span<char> all{burst};
    write_connection_frame(visitor, all.first<connection_frame_bytes>());
    write_connection_frame(challenge, all.last<connection_frame_bytes>());
    EXPECT_EQ(std::string(burst.data(), burst.size()),
              std::string{encode_connection(visitor).view()} +
                  std::string{encode_connection(challenge).view()});
}

TEST(Message, of_the_client_is_read_back) {
    EXPECT_EQ(parse_client_message(body(encode_hello(0))), ClientMessage{Hello{0}});
    EXPECT_EQ(parse_client_message(body(encode_hello(65535))), ClientMessage{Hello{65535}});
    EXPECT_EQ(parse_client_message(body(encode_accept(visitor))), ClientMessage{Accept{visitor}});
    EXPECT_EQ(parse_client_message(body(*encode_authenticate("tk_0"))),
              ClientMessage{Authenticate{"tk_0"}});
    EXPECT_EQ(parse_client_message("{\"Authenticate\":\"\"}"), ClientMessage{Authenticate{""}});
}

TEST(Message, of_the_server_is_read_back) {
    EXPECT_EQ(parse_server_message(body(encode_hello(34185))), ServerMessage{Hello{34185}});
    EXPECT_EQ(parse_server_message(body(encode_challenge(challenge))),
              ServerMessage{Challenge{challenge}});
    EXPECT_EQ(parse_server_message("\"Heartbeat\""), ServerMessage{Heartbeat{}});
    EXPECT_EQ(parse_server_message("{\"Heartbeat\":null}"), ServerMessage{Heartbeat{}});
    EXPECT_EQ(parse_server_message(body(encode_connection(visitor))),
              ServerMessage{Connection{visitor}});
    EXPECT_EQ(parse_server_message(body(encode_error("a \"b\" \\ \n \x01 ü €"))),
              ServerMessage{Error{"a \"b\" \\ \n \x01 ü €"}});
}

TEST(Message, null_is_the_end_of_the_stream) {
    EXPECT_EQ(parse_client_message("null"), ClientMessage{EndOfStream{}});
    EXPECT_EQ(parse_client_message(" null\n"), ClientMessage{EndOfStream{}});
    EXPECT_EQ(parse_server_message("null"), ServerMessage{EndOfStream{}});
}

TEST(Message, may_have_white_space_around_every_token) {
    EXPECT_EQ(parse_client_message(" \t\r\n{ \"Hello\"\n:\t8080 } "), ClientMessage{Hello{8080}});
    EXPECT_EQ(parse_server_message(" \"Heartbeat\" "), ServerMessage{Heartbeat{}});
}

TEST(Message, may_spell_its_text_with_escapes) {
    EXPECT_EQ(parse_client_message(R"({"\u0048ello":1})"), ClientMessage{Hello{1}});
    EXPECT_EQ(parse_client_message(R"({"Authenticate":"\u00e4\ud83d\ude00\/"})"),
              ClientMessage{Authenticate{"ä😀/"}});
}

TEST(Message, takes_an_id_in_every_spelling) {
    for (const char* text :
         {"F47AC10B-58CC-4372-A567-0E02B2C3D479", "f47ac10b58cc4372a5670e02b2c3d479",
          "{f47ac10b-58cc-4372-a567-0e02b2c3d479}", "urn:uuid:f47ac10b-58cc-4372-a567-0e02b2c3d479",
          R"(\u006647ac10b-58cc-4372-a567-0e02b2c3d479)"}) {
        EXPECT_EQ(parse_client_message(R"({"Accept":")"s + text + "\"}"),
                  ClientMessage{Accept{visitor}})
            << text;
    }
    EXPECT_EQ(parse_client_message(R"( {"Accept":"f47ac10b-58cc-4372-a567-0e02b2c3d479"})"),
              ClientMessage{Accept{visitor}});
}

// What neither direction takes.
const std::vector<std::string> nonsense{
    "",
    " ",
    "\n",
    "nul",
    "nullx",
    "null null",
    "true",
    "0",
    "[]",
    "{}",
    "[{\"Hello\":0}]",
    "\"\"",
    "\"Hello\"",
    "\"Hello",
    "{\"Hello\"}",
    "{\"Hello\":}",
    "{\"Hello\":0",
    "{\"Hello\":0}}",
    "{\"Hello\":0},",
    "{\"Hello\":0,}",
    "{\"Hello\":0}{\"Hello\":0}",
    "{\"Hello\":0,\"Hello\":0}",
    "{\"Hello\":0,\"Accept\":0}",
    "{\"Hello\":0,\"x\":null}",
    "{\"x\":null,\"Hello\":0}",
    "{\"Hello\":-1}",
    "{\"Hello\":-0}",
    "{\"Hello\":65536}",
    "{\"Hello\":4294967296}",
    "{\"Hello\":18446744073709551616}",
    "{\"Hello\":1.0}",
    "{\"Hello\":1e3}",
    "{\"Hello\":0.5}",
    "{\"Hello\":01}",
    "{\"Hello\":+1}",
    "{\"Hello\":0x10}",
    "{\"Hello\":\"0\"}",
    "{\"Hello\":null}",
    "{\"Hello\":true}",
    "{\"Hello\":[0]}",
    "{\"Hello\":{\"Hello\":0}}",
    "{\"hello\":0}",
    "{\"Hello \":0}",
    "{\"Hell\\u0000\":0}",
    "{\"Hello\":0}\x01",
    "{'Hello':0}",
    "{Hello:0}",
    "{\"Hello\":NaN}",
    "// comment\n{\"Hello\":0}",
    "{\"Goodbye\":0}",
    "\xef\xbb\xbf{\"Hello\":0}",
    "\"Goodbye\"",
};

TEST(Message, that_is_anything_else_is_refused_by_the_server) {
    for (const std::string& text : nonsense) {
        EXPECT_EQ(parse_client_message(text), std::nullopt) << text;
    }
    for (const char* text : {
             "{\"Authenticate\":1}",
             "{\"Authenticate\":null}",
             "{\"Authenticate\":[\"a\"]}",
             "{\"Authenticate\":\"a\",\"Authenticate\":\"a\"}",
             "{\"Authenticate\":\"\xff\"}",
             "{\"Authenticate\":\"\xc0\x80\"}",
             "{\"Authenticate\":\"\xed\xa0\x80\"}",
             "{\"Authenticate\":\"\\ud800\"}",
             "{\"Authenticate\":\"\\x\"}",
             "{\"Authenticate\":\"tab\there\"}",
             "{\"Accept\":0}",
             "{\"Accept\":\"\"}",
             "{\"Accept\":\"f47ac10b-58cc-4372-a567-0e02b2c3d47g\"}",
             "{\"Accept\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"]",
             "{\"Accept\":\"f47ac10b-58cc-4372-a567-0e02b2c3d47\"}",
             "\"Heartbeat\"",
             "{\"Connection\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"}",
             "{\"Challenge\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"}",
             "{\"Error\":\"x\"}",
         }) {
        EXPECT_EQ(parse_client_message(text), std::nullopt) << text;
    }
}

TEST(Message, that_is_anything_else_is_refused_by_the_client) {
    for (const std::string& text : nonsense) {
        EXPECT_EQ(parse_server_message(text), std::nullopt) << text;
    }
    for (const char* text : {
             "{\"Heartbeat\":0}",
             "{\"Heartbeat\":\"\"}",
             "\"Challenge\"",
             "{\"Challenge\":\"x\"}",
             "{\"Challenge\":0}",
             "{\"Connection\":\"x\"}",
             "{\"Connection\":null}",
             "{\"Error\":0}",
             "{\"Error\":null}",
             "\"Error\"",
             "{\"Accept\":\"f47ac10b-58cc-4372-a567-0e02b2c3d479\"}",
             "{\"Authenticate\":\"x\"}",
         }) {
        EXPECT_EQ(parse_server_message(text), std::nullopt) << text;
    }
}

TEST(Message, nested_as_deep_as_a_frame_allows_is_refused) {
    EXPECT_EQ(parse_client_message(std::string(256, '[')), std::nullopt);
    std::string deep;
    while (deep.size() + 5 <= max_frame_body_bytes) {
        deep += "{\"x\":";
    }
    EXPECT_EQ(parse_client_message(deep), std::nullopt);
}

TEST(Message, with_a_nul_inside_is_refused) {
    EXPECT_EQ(parse_client_message("{\"Hello\":0}\0"s), std::nullopt);
    EXPECT_EQ(parse_client_message("{\"Authenticate\":\"a\0b\"}"s), std::nullopt);
}

TEST(Message, may_fill_the_frame_to_the_last_byte) {
    const std::string longest = "{\"Authenticate\":\"" + std::string(237, 'k') + "\"}";
    ASSERT_EQ(longest.size(), max_frame_body_bytes);
    EXPECT_EQ(parse_client_message(longest), ClientMessage{Authenticate{std::string(237, 'k')}});
    const std::string padded = "{\"Hello\":1" + std::string(245, ' ') + "}";
    ASSERT_EQ(padded.size(), max_frame_body_bytes);
    EXPECT_EQ(parse_client_message(padded), ClientMessage{Hello{1}});
    const std::string all_text = "\"" + std::string(254, 'x') + "\"";
    EXPECT_EQ(parse_server_message(all_text), std::nullopt);
}

TEST(Credential, of_237_bytes_is_the_longest_that_fits) {
    EXPECT_EQ(encode_authenticate(std::string(237, 'a'))->view().size(), max_frame_wire_bytes);
    EXPECT_FALSE(encode_authenticate(std::string(238, 'a')));
    EXPECT_FALSE(encode_authenticate(std::string(119, '"'))) << "238 bytes after escaping";
    EXPECT_TRUE(encode_authenticate(std::string(118, '"')));
}

std::string shown(std::string_view error_text) {
    const std::string text = body(encode_error(error_text));
    EXPECT_LE(text.size(), max_frame_body_bytes);
    const auto message = parse_server_message(text);
    EXPECT_TRUE(message.has_value()) << text;
    return message ? std::get<Error>(*message).text : "";
}

TEST(ErrorText, of_244_bytes_is_whole_and_fills_the_frame) {
    const std::string text(244, 'e');
    EXPECT_EQ(encode_error(text).view().size(), max_frame_wire_bytes);
    EXPECT_EQ(shown(text), text);
}

TEST(ErrorText, beyond_244_bytes_is_cut) {
    EXPECT_EQ(shown(std::string(245, 'e')), std::string(244, 'e'));
    EXPECT_EQ(shown(std::string(100'000, 'e')), std::string(244, 'e'));
}

TEST(ErrorText, is_cut_after_escaping_and_never_inside_an_escape) {
    EXPECT_EQ(shown(std::string(200, '"')), std::string(122, '"'));
    EXPECT_EQ(shown("x" + std::string(200, '"')), "x" + std::string(121, '"'));
    EXPECT_EQ(shown(std::string(200, '\x01')), std::string(40, '\x01')) << "6 bytes each";
}

TEST(ErrorText, is_cut_between_characters_of_any_length) {
    for (const std::string character : {"ü", "€", "😀"}) {
        for (std::size_t offset = 0; offset < 5; ++offset) {
            const std::string head(offset, 'x');
            std::string text = head;
            for (int i = 0; i < 200; ++i) {
                text += character;
            }
            const std::string cut = shown(text);
            const std::size_t count = (244 - offset) / character.size();
            EXPECT_EQ(cut, text.substr(0, offset + count * character.size()))
                << character << offset;
        }
    }
}

TEST(ErrorText, is_escaped_as_the_originals_do) {
    EXPECT_EQ(body(encode_error("\"\\/\b\f\n\r\t\x1f\x7f é")),
              "{\"Error\":\"\\\"\\\\/\\b\\f\\n\\r\\t\\u001f\x7f é\"}");
    EXPECT_EQ(body(encode_error(""s + '\0')), "{\"Error\":\"\\u0000\"}");
}

TEST(ErrorText, that_is_not_utf8_is_repaired) {
    const std::string mark = "\xEF\xBF\xBD";
    EXPECT_EQ(shown("a\xff"
                    "b"),
              "a" + mark + "b");
    EXPECT_EQ(shown("\xc3"), mark) << "cut inside a character";
    EXPECT_EQ(shown("\xe2\x82"), mark + mark);
    EXPECT_EQ(shown("\xf0\x9f\x98"), mark + mark + mark);
    EXPECT_EQ(shown("\xc0\xaf"), mark + mark) << "overlong";
    EXPECT_EQ(shown("\xe0\x80\x80"), mark + mark + mark) << "overlong";
    EXPECT_EQ(shown("\xed\xa0\x80"), mark + mark + mark) << "surrogate";
    EXPECT_EQ(shown("\xf4\x90\x80\x80"), mark + mark + mark + mark) << "beyond U+10FFFF";
    EXPECT_EQ(shown("\xf4\x8f\xbf\xbf"), "\xf4\x8f\xbf\xbf") << "U+10FFFF itself";
}

}  // namespace
}  // namespace bore::protocol
