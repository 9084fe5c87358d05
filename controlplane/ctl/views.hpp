// What each reading command shows of a snapshot: for people facts and a table, for programs JSON
// with every counter under the name that its table gives it. Pure: values in, values out.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include "controlplane/ctl/table.hpp"
#include "dataplane/abi/snapshot.hpp"

namespace bore::ctl {

struct View {
    std::vector<std::pair<std::string, std::string>> facts;
    std::optional<Table> table;
    std::string note;  // a sentence below, where there is something to say
    boost::json::object json;
};

// Facts, table and note as text; a blank line between facts and table.
[[nodiscard]] std::string render(const View& view);

// "stale since 2026-11-29T14:02:03Z (12 s ago): ..."; empty while the relay lives.
[[nodiscard]] std::string stale_text(const abi::Snapshot& snapshot);

// `ping`: what the control socket answered, where there is one.
[[nodiscard]] View status_view(const abi::Snapshot& snapshot,
                               const std::optional<boost::json::object>& ping);
// `all`: rows of ended tunnels, too.
[[nodiscard]] View tunnels_view(const abi::Snapshot& snapshot, bool all);
[[nodiscard]] View workers_view(const abi::Snapshot& snapshot);
[[nodiscard]] View ports_view(const abi::Snapshot& snapshot);
// What was refused, dropped or failed; `all`: reasons that never came, too.
[[nodiscard]] View drops_view(const abi::Snapshot& snapshot, bool all);
[[nodiscard]] View histograms_view(const abi::Snapshot& snapshot);
// `answers`: those of the control socket, page by page.
[[nodiscard]] View flows_view(const std::vector<boost::json::object>& answers);

// What every JSON output begins with: the relay, whether it lives, for how long it has been stale.
[[nodiscard]] boost::json::object head_of(const abi::Snapshot& snapshot);
// What tells a tunnel from all others of the relay's run, as `kill` takes it.
[[nodiscard]] std::string id_of(const abi::TunnelSnapshot& tunnel);
// "stream", "packet", "both", or "-" before the first pair.
[[nodiscard]] std::string path_of(const abi::TunnelSnapshot& tunnel);
[[nodiscard]] std::string name_of(abi::TunnelState state);

}  // namespace bore::ctl
