// Loading a configuration: start, reload and --check-config do it once.
#include <array>
#include <string>

#include "bench/micro/conclude.hpp"
#include "controlplane/config/server_config.hpp"

namespace bore::bench {

namespace {

const std::string& text() {
    static const std::string file = R"(
min_port = 10000
max_port = 20000
reserved_ports = [15432, 16379]
bind_addr = ["127.0.0.1", "::1"]
secret = "a secret"
allow_clients = ["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]
deny_visitors = ["198.51.100.0/24"]
max_tunnels = 1000
tunnel_bandwidth_mbit = 100
idle_timeout_s = 600
workers = 2
log_format = "json"
)";
    return file;
}

void load(benchmark::State& state) {
    const std::array<const char*, 4> arguments{"bore-server", "--config", "bore.toml",
                                               "--max-tunnels=2000"};
    const config::FileReader reader =
        [](const std::string& /*path*/) -> std::expected<std::string, std::error_code> {
        return text();
    };
    bool right = true;
    for (auto _ : state) {
        const auto loaded = config::load_server_config(arguments, {}, reader);
        right &= loaded.has_value() && loaded->config.min_port == 10'000 &&
                 loaded->config.max_tunnels == 2'000;
    }
    conclude(state, "configuration of 12 keys read and checked", 1, right);
}
BENCHMARK(load)->Name("config/load");

}  // namespace

}  // namespace bore::bench
