// A small HTTP server for an operator's network: GET and HEAD of a few paths, each answered by one
// function, all on one thread. Boost.Beast parses; bounds and deadlines are here.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cstddef>
#include <expected>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "controlplane/config/exporter_config.hpp"

namespace bore::exporter {

struct Answer {
    unsigned status{200};
    std::string content_type;
    std::string body;
};

class HttpServer {
  public:
    // Called for each request with its path, without what is behind a question mark.
    using Handler = std::function<Answer(std::string_view path)>;

    // Everything ends with `io`, which must outlive this object.
    HttpServer(boost::asio::io_context& io, Handler handler)
        : io_(io), handler_(std::move(handler)) {}

    // Listens on all addresses or on none; the error is a sentence with a remedy. Gives the
    // addresses in use, with the port that was found for port 0.
    [[nodiscard]] std::expected<std::vector<config::ListenAddress>, std::string> listen(
        const std::vector<config::ListenAddress>& addresses);

  private:
    using Acceptor = boost::asio::ip::tcp::acceptor;
    using Socket = boost::asio::ip::tcp::socket;

    boost::asio::awaitable<void> accept(Acceptor acceptor);
    boost::asio::awaitable<void> serve(Socket socket);

    boost::asio::io_context& io_;
    Handler handler_;
    std::size_t connection_count_{0};
};

}  // namespace bore::exporter
