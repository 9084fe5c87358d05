// 1. accept() takes a connection, or closes it where there are too many. 2. serve() reads a
// request, answers it and reads the next, until the peer goes or a deadline passes.
#include "controlplane/exporter/http_server.hpp"

#include <spdlog/spdlog.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <cstring>

namespace bore::exporter {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using config::ListenAddress;

// Two Prometheus servers, a health check, somebody with curl; a response may have megabytes.
constexpr std::size_t max_connections = 32;
constexpr std::uint32_t max_header_bytes = 8'192;
constexpr std::chrono::seconds request_deadline{90};  // longer than a usual scrape interval
constexpr std::chrono::seconds response_deadline{30};
constexpr std::chrono::milliseconds accept_pause{100};
constexpr auto as_result = asio::as_tuple(asio::use_awaitable);

tcp::endpoint endpoint_of(const ListenAddress& address) {
    if (address.address.is_v4()) {
        asio::ip::address_v4::bytes_type bytes;
        std::memcpy(bytes.data(), address.address.bytes.data() + 12, bytes.size());
        return {asio::ip::address_v4(bytes), address.port};
    }
    return {asio::ip::address_v6(address.address.bytes), address.port};
}

error_code open(tcp::acceptor& acceptor, const tcp::endpoint& endpoint) {
    error_code error;
    (void)acceptor.open(endpoint.protocol(), error);
    if (!error) {
        (void)acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    }
    if (!error && endpoint.protocol() == tcp::v6()) {
        // Each address stands for itself, as in the relay.
        (void)acceptor.set_option(asio::ip::v6_only(true), error);
    }
    if (!error) {
        (void)acceptor.bind(endpoint, error);
    }
    if (!error) {
        (void)acceptor.listen(static_cast<int>(max_connections), error);
    }
    return error;
}

using Request = http::request<http::empty_body>;
using Response = http::response<http::string_body>;

Response respond(const Request& request, const HttpServer::Handler& handler) {
    const bool known = request.method() == http::verb::get || request.method() == http::verb::head;
    const std::string_view target(request.target().data(), request.target().size());
    Answer answer = known ? handler(target.substr(0, target.find('?')))
                          : Answer{405, "text/plain; charset=utf-8", "GET or HEAD\n"};
    Response response(static_cast<http::status>(answer.status), request.version());
    response.set(http::field::server, "bore-exporter");
    response.set(http::field::content_type, answer.content_type);
    if (!known) {
        response.set(http::field::allow, "GET, HEAD");
    }
    response.keep_alive(request.keep_alive());
    response.body() = std::move(answer.body);
    response.prepare_payload();
    return response;
}

}  // namespace

std::expected<std::vector<ListenAddress>, std::string> HttpServer::listen(
    const std::vector<ListenAddress>& addresses) {
    std::vector<Acceptor> acceptors;
    std::vector<ListenAddress> in_use;
    for (const ListenAddress& address : addresses) {
        Acceptor& acceptor = acceptors.emplace_back(io_);
        if (const error_code error = open(acceptor, endpoint_of(address))) {
            return std::unexpected("listen=" + address.to_string() + ": cannot listen there (" +
                                   error.message() +
                                   "); name an address of this machine and a free port");
        }
        in_use.push_back({address.address, acceptor.local_endpoint().port()});
    }
    for (Acceptor& acceptor : acceptors) {
        asio::co_spawn(io_, accept(std::move(acceptor)), asio::detached);
    }
    return in_use;
}

asio::awaitable<void> HttpServer::accept(Acceptor acceptor) {
    asio::steady_timer pause(io_);
    for (;;) {
        auto [error, socket] = co_await acceptor.async_accept(as_result);
        if (error == asio::error::operation_aborted) {
            co_return;
        }
        if (error) {  // out of descriptors, mostly: they come back
            spdlog::warn("cannot accept: {}", error.message());
            pause.expires_after(accept_pause);
            co_await pause.async_wait(as_result);
        } else if (connection_count_ < max_connections) {
            asio::co_spawn(io_, serve(std::move(socket)), asio::detached);
        }
    }
}

asio::awaitable<void> HttpServer::serve(Socket socket) {
    struct Counted {
        explicit Counted(std::size_t& number) : count(number) { ++count; }
        Counted(const Counted&) = delete;
        Counted& operator=(const Counted&) = delete;
        ~Counted() { --count; }
        std::size_t& count;
    };
    const Counted counted(connection_count_);
    beast::tcp_stream stream(std::move(socket));
    beast::flat_buffer buffer(max_header_bytes);
    for (bool keep = true; keep;) {
        http::request_parser<http::empty_body> parser;
        parser.header_limit(max_header_bytes);
        parser.body_limit(0);
        stream.expires_after(request_deadline);
        const auto [failed, size] = co_await http::async_read(stream, buffer, parser, as_result);
        if (failed) {
            break;  // gone, silent for too long, or not HTTP
        }
        const Response response = respond(parser.get(), handler_);
        keep = response.keep_alive();
        stream.expires_after(response_deadline);
        error_code error;
        if (parser.get().method() == http::verb::head) {
            http::response_serializer<http::string_body> serializer(response);
            serializer.split(true);
            std::tie(error, std::ignore) =
                co_await http::async_write_header(stream, serializer, as_result);
        } else {
            http::response_serializer<http::string_body> serializer(response);
            std::tie(error, std::ignore) =
                co_await http::async_write(stream, serializer, as_result);
        }
        keep = keep && !error;
    }
    error_code ignored;
    (void)stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
}

}  // namespace bore::exporter
