// A scrape: 1. segments are read, 2. each family is made, written and forgotten, 3. last come the
// exporter's own metrics, the time that all of it took among them.
#include "controlplane/exporter/exposition.hpp"

#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <chrono>
#include <fstream>
#include <ostream>
#include <streambuf>
#include <vector>

namespace bore::exporter {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

// Appends to a string that is handed over afterwards; a stringstream would copy megabytes.
class StringSink : public std::streambuf {
  public:
    explicit StringSink(std::string& text) : text_(text) {}

  protected:
    std::streamsize xsputn(const char* data, std::streamsize size) override {
        text_.append(data, static_cast<std::size_t>(size));
        return size;
    }
    int_type overflow(int_type character) override {
        text_.push_back(traits_type::to_char_type(character));
        return character;
    }

  private:
    std::string& text_;
};

double realtime_s() {
    using std::chrono::duration;
    return duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

double cpu_seconds() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double resident_bytes() {
    std::ifstream file("/proc/self/statm");
    std::uint64_t total_pages = 0;
    std::uint64_t resident_pages = 0;
    file >> total_pages >> resident_pages;
    return static_cast<double>(resident_pages) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

MetricFamily own(MetricType type, std::string name, std::string help, double value,
                 std::vector<prometheus::ClientMetric::Label> labels = {}) {
    MetricFamily family{
        .name = std::move(name), .help = std::move(help), .type = type, .metric = {}};
    prometheus::ClientMetric metric;
    metric.label = std::move(labels);
    (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    family.metric.push_back(std::move(metric));
    return family;
}

MetricFamily left_out(const Relays::LeftOut& files) {
    MetricFamily family = own(MetricType::Gauge, "bore_exporter_segments_left_out",
                              "Files that are named like segments and not followed: beyond "
                              "max-relays, or of a user who runs no relay.",
                              static_cast<double>(files.beyond_limit), {{"reason", "limit"}});
    prometheus::ClientMetric& second = family.metric.emplace_back();
    second.label = {{"reason", "owner"}};
    second.gauge.value = static_cast<double>(files.of_strangers);
    return family;
}

}  // namespace

Exposition::Exposition(const config::ExporterConfig& config)
    : relays_(config), where_(config.segment_directory), started_at_(realtime_s()) {}

// Enough for the first answer, too: a text of megabytes that grows by doubling takes three times
// its size for a moment.
std::size_t Exposition::size_to_expect(const std::vector<RelayView>& views) const {
    constexpr std::size_t relay_bytes = 256 * 1'024;
    constexpr std::size_t tunnel_bytes = 900;  // of its series; measured with 10,000 of them: 730
    std::size_t size_bytes = 0;
    for (const RelayView& relay : views) {
        size_bytes += relay_bytes;
        size_bytes += relay.snapshot != nullptr ? relay.accounts->shown().size() * tunnel_bytes : 0;
    }
    return std::max(size_bytes, last_size_bytes_ + last_size_bytes_ / 8);
}

std::string Exposition::metrics() {
    const base::Nanoseconds began = base::monotonic_now();
    ++scrapes_;
    relays_.refresh();
    const std::vector<RelayView> views = relays_.views();

    std::string text;
    text.reserve(size_to_expect(views));
    StringSink sink(text);
    std::ostream stream(&sink);
    const prometheus::TextSerializer serializer;
    const auto write = [&](const MetricFamily& family) { serializer.Serialize(stream, {family}); };
    write_relays(views, write);

    constexpr auto counter = MetricType::Counter;
    constexpr auto gauge = MetricType::Gauge;
    write(own(gauge, "bore_exporter_info", "The exporter and its version.", 1,
              {{"version", BORE_VERSION}}));
    write(own(gauge, "bore_exporter_relays", "Relays that the exporter looks at.",
              static_cast<double>(views.size())));
    write(left_out(relays_.left_out()));
    write(own(counter, "bore_exporter_scrapes_total", "Answers to /metrics, this one included.",
              static_cast<double>(scrapes_)));
    write(own(counter, "process_cpu_seconds_total", "Processor time of the exporter.",
              cpu_seconds()));
    write(own(gauge, "process_resident_memory_bytes", "Resident memory of the exporter.",
              resident_bytes()));
    write(own(gauge, "process_start_time_seconds",
              "When the exporter was started, in seconds since 1970.", started_at_));
    write(own(gauge, "bore_exporter_scrape_duration_seconds",
              "Time to read all segments and write this answer up to here.",
              static_cast<double>(base::monotonic_now() - began) * 1e-9));
    last_size_bytes_ = text.size();
    return text;
}

Health Exposition::health() {
    relays_.refresh();
    boost::json::array relays;
    bool healthy = true;
    for (const Relays::Health& relay : relays_.health()) {
        boost::json::object entry{{"relay", relay.relay}, {"up", relay.reason.empty()}};
        if (!relay.reason.empty()) {
            entry["reason"] = relay.reason;
            healthy = false;
        }
        relays.push_back(std::move(entry));
    }
    boost::json::object answer;
    if (relays.empty()) {
        healthy = false;
        answer["reason"] =
            "no relay's segment is in " + where_ +
            ": none runs, or with --stats off, or this user may not read the folder" +
            (relays_.left_out().of_strangers == 0 ? "" : "; what is there belongs to other users");
    }
    answer["status"] = healthy ? "ok" : "failing";
    answer["relays"] = std::move(relays);
    return {healthy, boost::json::serialize(answer) + "\n"};
}

}  // namespace bore::exporter
