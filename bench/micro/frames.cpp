// The control protocol's frames: made, cut out of a stream, read.
#include <array>
#include <string>
#include <string_view>
#include <variant>

#include "bench/micro/conclude.hpp"
#include "controlplane/bore/frame.hpp"
#include "controlplane/bore/message.hpp"

namespace bore::bench {

namespace {

using namespace protocol;

const Uuid visitor{{0xf4, 0x7a, 0xc1, 0x0b, 0x58, 0xcc, 0x43, 0x72, 0xa5, 0x67, 0x0e, 0x02, 0xb2,
                    0xc3, 0xd4, 0x79}};

std::string_view body(std::string_view frame) {
    return frame.substr(0, frame.size() - 1);  // without its NUL
}

void encode_hello_frame(benchmark::State& state) {
    std::uint16_t port = 0;
    EncodedFrame frame;
    for (auto _ : state) {
        frame = encode_hello(++port);
        keep(frame);
    }
    conclude(state, "Hello encoded", 1,
             parse_server_message(body(frame.view())) == ServerMessage(Hello{port}));
}
BENCHMARK(encode_hello_frame)->Name("frames/encode_hello");

void encode_connection_frame(benchmark::State& state) {
    std::array<char, connection_frame_bytes> frame{};
    Uuid id = visitor;
    for (auto _ : state) {
        ++id.bytes[0];
        write_connection_frame(id, frame);
        keep(frame);
    }
    conclude(
        state, "Connection encoded", 1,
        parse_server_message(body({frame.data(), frame.size()})) == ServerMessage(Connection{id}));
}
BENCHMARK(encode_connection_frame)->Name("frames/encode_connection");

void encode_error_frame(benchmark::State& state) {
    const std::string text = "port \"8080\" is in use by another tunnel";
    EncodedFrame frame;
    for (auto _ : state) {
        frame = encode_error(text);
        keep(frame);
    }
    conclude(state, "Error encoded, with two characters to escape", 1,
             parse_server_message(body(frame.view())) == ServerMessage(Error{text}));
}
BENCHMARK(encode_error_frame)->Name("frames/encode_error");

// A stream of frames, given to the reader in pieces of `read_bytes`.
void cut(benchmark::State& state) {
    constexpr std::size_t frame_count = 16;
    const auto read_bytes = static_cast<std::size_t>(state.range(0));
    std::string stream;
    for (std::size_t frame = 0; frame < frame_count; ++frame) {
        stream += encode_accept(visitor).view();
    }
    std::size_t found_bytes = 0;
    std::size_t found = 0;
    for (auto _ : state) {
        FrameReader reader;
        found = found_bytes = 0;
        for (std::size_t at = 0; at < stream.size(); at += read_bytes) {
            reader.feed(std::string_view(stream).substr(at, read_bytes));
            for (auto next = reader.next(); next.status == FrameReader::Status::frame;
                 next = reader.next()) {
                keep(next.json.data());
                found_bytes += next.json.size();
                ++found;
            }
        }
    }
    conclude(state, "frame of 50 bytes found, in reads of so many bytes", frame_count,
             found == frame_count && found_bytes == stream.size() - frame_count);
}
BENCHMARK(cut)->Name("frames/cut")->Arg(4'096)->Arg(64)->Arg(7);

void parse_accept(benchmark::State& state) {
    const EncodedFrame frame = encode_accept(visitor);
    std::optional<ClientMessage> message;
    for (auto _ : state) {
        message = parse_client_message(body(frame.view()));
        keep(message);
    }
    conclude(state, "Accept read", 1, message == ClientMessage(Accept{visitor}));
}
BENCHMARK(parse_accept)->Name("frames/parse_accept");

void parse_hello(benchmark::State& state) {
    std::optional<ClientMessage> message;
    for (auto _ : state) {
        message = parse_client_message("{\"Hello\":8080}");
        keep(message);
    }
    conclude(state, "Hello read", 1, message == ClientMessage(Hello{8080}));
}
BENCHMARK(parse_hello)->Name("frames/parse_hello");

}  // namespace

}  // namespace bore::bench
