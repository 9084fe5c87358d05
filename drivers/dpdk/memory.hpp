// Hugepages for the flow table, straight from the kernel. A table of a million flows is a quarter
// of a gigabyte that is read at random: with pages of 4 KiB every look-up would also miss the TLB.
#pragma once

#include <memory>

#include "dataplane/packet/flow_table.hpp"

namespace bore::drivers {

// Pages of 2 MiB (granule_bytes). Address space is reserved at once, pages are taken piece by piece
// and touched at once, so that a lack of them shows as commit() == false and never later.
[[nodiscard]] std::unique_ptr<packet::TableMemory> make_hugepage_memory();

}  // namespace bore::drivers
