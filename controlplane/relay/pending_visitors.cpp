// The table and its expiry.
#include "controlplane/relay/pending_visitors.hpp"

#include <vector>

#include "dataplane/base/check.hpp"

namespace bore::relay {

protocol::Uuid PendingVisitors::add(Visitor&& visitor, base::Nanoseconds due) {
    const protocol::Uuid id = protocol::random_uuid_v4();
    const auto [entry, inserted] = visitors_.try_emplace(id, *this, id, std::move(visitor));
    BORE_CHECK(inserted, "122 random bits came twice");
    timers_.arm(entry->second.timer, due);
    return id;
}

Tunnel* PendingVisitors::tunnel_of(const protocol::Uuid& id) const {
    const auto found = visitors_.find(id);
    return found == visitors_.end() ? nullptr : found->second.visitor.tunnel;
}

std::optional<PendingVisitors::Visitor> PendingVisitors::take(const protocol::Uuid& id) {
    const auto found = visitors_.find(id);
    if (found == visitors_.end()) {
        return std::nullopt;
    }
    std::optional<Visitor> visitor(std::move(found->second.visitor));
    visitors_.erase(found);  // its timer unlinks itself
    return visitor;
}

void PendingVisitors::expire(protocol::Uuid id) {
    if (auto visitor = take(id)) {
        visitor->socket.reset();
        handler_.on_visitor_expired(*visitor->tunnel);
    }
}

void PendingVisitors::drop_all() {
    while (!visitors_.empty()) {
        expire(visitors_.begin()->first);
    }
}

void PendingVisitors::drop_of(const Tunnel& tunnel) {
    std::vector<protocol::Uuid> theirs;
    for (const auto& [id, entry] : visitors_) {
        if (entry.visitor.tunnel == &tunnel) {
            theirs.push_back(id);
        }
    }
    for (const protocol::Uuid& id : theirs) {
        expire(id);
    }
}

}  // namespace bore::relay
