// serve: listens and gives every connection to the service, until a stop signal. Out of descriptors
// it pauses instead of ending; a thread more is a listener more on the same port.
#include <sys/epoll.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "bench/load/modes.hpp"
#include "bench/load/run.hpp"
#include "bench/load/service.hpp"
#include "bench/load/sockets.hpp"

namespace bore::bench {
namespace {

constexpr base::Nanoseconds pause_without_descriptors = 100 * base::millisecond_ns;

class Listener final : public Handler {
  public:
    Listener(Part& part, Descriptor listener, Service& service)
        : part_(part), listener_(std::move(listener)), service_(service) {
        part_.loop.add(listener_.get(), EPOLLIN, *this);
    }

    void on_ready(std::uint32_t) override {
        for (;;) {
            std::expected<Descriptor, int> connection = accept_one(listener_.get());
            if (connection) {
                service_.adopt(std::move(*connection));
                continue;
            }
            // A visitor that has gone again (ECONNABORTED) is none of our errors.
            if (reason_of_connect(connection.error()) == Reason::local &&
                connection.error() != EAGAIN) {
                pause(connection.error());
            }
            return;
        }
    }

  private:
    void pause(int error) {
        part_.fail(Reason::local, std::string("accept: ") + std::strerror(error));
        part_.loop.modify(listener_.get(), 0, *this);
        part_.loop.call_at(base::monotonic_now() + pause_without_descriptors,
                           [this] { part_.loop.modify(listener_.get(), EPOLLIN, *this); });
    }

    Part& part_;
    Descriptor listener_;
    Service& service_;
};

}  // namespace

int run_serve(const ServeOptions& options) {
    require_descriptors(64);
    Run run("serve", options.common, 1e9);
    // All listen before the line that says so.
    const bool shared = options.common.threads > 1;
    std::vector<Descriptor> listeners;
    Endpoint endpoint = resolve(options.listen);
    std::uint16_t port = 0;
    for (std::uint32_t index = 0; index < options.common.threads; ++index) {
        listeners.push_back(listen_on(endpoint, shared, port));
        // Port 0 was a question; the others join the answer.
        reinterpret_cast<sockaddr_in*>(&endpoint.address)->sin_port = htons(port);
    }
    JsonLine ready = run.ready();
    ready.add("listen", options.listen).add("port", port).print();

    run.on_threads([&](Part& part, std::uint32_t index) {
        Service service(part, fixed_work_of(options.as), to_ns(options.opening_timeout_seconds));
        const Listener listener(part, std::move(listeners[index]), service);
        (void)part.run_until(part.deadline(), [] { return false; });
    });
    run.stop_was_intended();
    JsonLine line = run.result(to_seconds(base::monotonic_now() - run.started()));
    line.add("listen", options.listen);
    add_service_fields(run, line);
    return run.finish(line, true);
}

}  // namespace bore::bench
