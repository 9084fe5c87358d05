// An HTTP request on the control port: which first bytes count, when the answer is due, what it is.
#include "controlplane/bore/http_probe.hpp"

#include <gtest/gtest.h>

#include <string>

namespace bore::protocol {
namespace {

constexpr std::string_view head =
    "HTTP/1.1 200 OK\r\n"
    "Content-Type: text/plain\r\n"
    "Content-Length: 28\r\n"
    "Cache-Control: no-store\r\n"
    "Connection: close\r\n"
    "\r\n";
const std::string full = std::string{head} + "bore tunnel relay, healthy.\n";

TEST(HttpProbe, begins_with_the_letter_of_a_method_and_no_message_does) {
    for (int byte = -128; byte < 128; ++byte) {
        const char character = static_cast<char>(byte);
        EXPECT_EQ(is_http_probe(character),
                  std::string_view{"GHPO"}.find(character) != std::string_view::npos);
    }
    for (const char first : {'{', '"', 'n', ' ', '\t', '\r', '\n', '\0'}) {
        EXPECT_FALSE(is_http_probe(first)) << "a message or its white space";
    }
}

TEST(HttpProbe, get_is_answered_with_head_and_body) {
    HttpProbe probe;
    EXPECT_TRUE(probe.feed("GET /health HTTP/1.1\r\nHost: relay:7835\r\n\r\n"));
    EXPECT_EQ(probe.answer(), full);
}

TEST(HttpProbe, head_is_answered_without_body) {
    HttpProbe probe;
    EXPECT_TRUE(probe.feed("HEAD / HTTP/1.1\r\nHost: relay:7835\r\n\r\n"));
    EXPECT_EQ(probe.answer(), head);
}

TEST(HttpProbe, other_methods_are_answered_like_get) {
    for (const std::string method : {"POST", "PUT", "PATCH", "OPTIONS", "HEADER", "G"}) {
        HttpProbe probe;
        EXPECT_TRUE(probe.feed(method + " / HTTP/1.1\r\n\r\n"));
        EXPECT_EQ(probe.answer(), full) << method;
    }
}

TEST(HttpProbe, waits_for_the_blank_line_wherever_the_request_is_split) {
    const std::string request = "HEAD / HTTP/1.0\r\nUser-Agent: curl\r\n\r\n";
    for (std::size_t at = 0; at < request.size(); ++at) {
        HttpProbe probe;
        EXPECT_FALSE(probe.feed(request.substr(0, at))) << at;
        EXPECT_TRUE(probe.feed(request.substr(at))) << at;
        EXPECT_EQ(probe.answer(), head);
    }
    HttpProbe probe;
    for (std::size_t i = 0; i + 1 < request.size(); ++i) {
        EXPECT_FALSE(probe.feed(request.substr(i, 1)));
    }
    EXPECT_TRUE(probe.feed("\n"));
}

TEST(HttpProbe, takes_bare_line_feeds) {
    HttpProbe probe;
    EXPECT_TRUE(probe.feed("GET / HTTP/1.0\n\n"));
    EXPECT_EQ(probe.answer(), full);
}

TEST(HttpProbe, answers_a_head_without_end_at_4_KiB) {
    HttpProbe probe;
    EXPECT_FALSE(probe.feed("GET /" + std::string(HttpProbe::max_head_bytes - 6, 'x')));
    EXPECT_TRUE(probe.feed("x"));
    EXPECT_TRUE(probe.feed(std::string(1 << 20, 'x'))) << "and stays done";
    EXPECT_EQ(probe.answer(), full);
}

}  // namespace
}  // namespace bore::protocol
