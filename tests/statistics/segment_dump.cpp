// Prints snapshots of a segment as JSON for the end-to-end tests, one line each: one at the start,
// and one more for every line on standard input. A reader of its own process, as the exporter is.
//
//     segment_dump SERVER_ID|PATH
#include <cstdint>
#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>

#include "dataplane/abi/segment_reader.hpp"

namespace {

using namespace bore::abi;

// Texts here are addresses, names, sentences and TOML.
std::string quoted(std::string_view text) {
    std::string result = "\"";
    for (const char letter : text) {
        if (static_cast<unsigned char>(letter) < 0x20) {
            char escaped[8];
            std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(letter));
            result += escaped;
        } else {
            if (letter == '"' || letter == '\\') {
                result += '\\';
            }
            result += letter;
        }
    }
    return result + "\"";
}

class Object {
  public:
    Object& text(std::string_view name, std::string_view value) { return raw(name, quoted(value)); }
    Object& number(std::string_view name, std::uint64_t value) {
        return raw(name, std::to_string(value));
    }
    Object& raw(std::string_view name, const std::string& value) {
        members_ += (members_.empty() ? "" : ",") + quoted(name) + ":" + value;
        return *this;
    }
    [[nodiscard]] std::string str() const { return "{" + members_ + "}"; }

  private:
    std::string members_;
};

template <typename Values>
Object counters_of(const Values& values) {
    Object object;
    for_each(values, [&](const CounterInfo& info, std::uint64_t value) {
        object.number(info.name, value);
    });
    return object;
}

template <typename Set>
void add_histograms(Object& object, const Set& set) {
    for_each(set, [&](const HistogramInfo& info, const HistogramValues& values) {
        object.raw(info.name,
                   Object().number("count", values.count()).number("sum", values.sum).str());
    });
}

std::string tunnel_of(const TunnelSnapshot& tunnel) {
    const TunnelDescription& described = tunnel.description;
    return Object()
        .number("row", tunnel.row_index)
        .number("generation", described.generation)
        .number("state", static_cast<std::uint64_t>(described.state))
        .number("port", described.port)
        .text("client", text_of(described.client_address))
        .text("bound", text_of(described.bind_addresses))
        .number("dialect", static_cast<std::uint64_t>(described.dialect))
        .number("to_client_limit", described.to_client_bytes_per_second)
        .number("visitors_pending", tunnel.visitors_pending)
        .number("visitors_live", tunnel.visitors_live)
        .raw("total", counters_of(tunnel.total()).str())
        .raw("packet", counters_of(tunnel.packet).str())
        .str();
}

template <typename Parts, typename Print>
std::string list_of(const Parts& parts, Print&& print) {
    std::string list;
    for (const auto& part : parts) {
        list += (list.empty() ? "" : ",") + print(part);
    }
    return "[" + list + "]";
}

std::string dump(SegmentReader& reader) {
    const auto snapshot = reader.read();
    if (!snapshot) {
        return Object()
            .number("error_kind", static_cast<std::uint64_t>(snapshot.error().kind))
            .text("error", snapshot.error().text)
            .str();
    }
    Object histograms;
    add_histograms(histograms, snapshot->control_histograms);
    add_histograms(histograms, sum_of_histograms(snapshot->workers));
    if (snapshot->slow_path) {
        add_histograms(histograms, snapshot->slow_path->histograms);
    }
    return Object()
        .text("server_id", text_of(snapshot->identity.server_id))
        .text("version", text_of(snapshot->identity.version))
        .text("engine", text_of(snapshot->identity.engine))
        .number("pid", snapshot->identity.process_id)
        .text("instance", std::to_string(snapshot->instance_id))
        .text("configuration", snapshot->configuration)
        .number("alive", snapshot->writer_alive ? 1 : 0)
        .number("stale", snapshot->stale_since ? 1 : 0)
        .number("torn", snapshot->torn_row_count)
        .raw("control", counters_of(snapshot->control).str())
        .raw("workers", list_of(snapshot->workers,
                                [](const WorkerSnapshot& worker) {
                                    return counters_of(worker.counters)
                                        .number("heartbeat_age_ns", worker.heartbeat_age_ns)
                                        .str();
                                }))
        .raw("slow_path",
             snapshot->slow_path ? counters_of(snapshot->slow_path->counters).str() : "{}")
        .raw("histograms", histograms.str())
        .raw("tunnels", list_of(snapshot->tunnels, &tunnel_of))
        .str();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fputs("Use: segment_dump SERVER_ID|PATH\n", stderr);
        return 2;
    }
    SegmentReader reader(argv[1]);
    std::string line;
    do {
        std::cout << dump(reader) << std::endl;
    } while (std::getline(std::cin, line));
}
