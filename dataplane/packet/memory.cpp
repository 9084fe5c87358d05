// Ordinary memory for the flow table, where there are no hugepages: tests, and `packet-eal` runs
// without them.
#include <cstring>
#include <new>

#include "dataplane/packet/flow_table.hpp"

namespace bore::packet {

namespace {

constexpr std::size_t granule = 4'096;

class OrdinaryMemory final : public TableMemory {
  public:
    std::byte* reserve(std::size_t size_bytes) override {
        // The allocator takes large sizes straight from the kernel: pages cost nothing until
        // touched.
        return static_cast<std::byte*>(
            ::operator new(size_bytes, std::align_val_t{granule}, std::nothrow));
    }
    bool commit(std::byte* at, std::size_t size_bytes) override {
        std::memset(at, 0, size_bytes);
        return true;
    }
    void release(std::byte* at, std::size_t /*size_bytes*/) override {
        ::operator delete(at, std::align_val_t{granule});
    }
    std::size_t granule_bytes() const override { return granule; }
};

}  // namespace

std::unique_ptr<TableMemory> make_ordinary_memory() {
    return std::make_unique<OrdinaryMemory>();
}

}  // namespace bore::packet
