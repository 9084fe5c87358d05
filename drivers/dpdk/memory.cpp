#include "drivers/dpdk/memory.hpp"

#include <linux/mman.h>
#include <sys/mman.h>

#include <cstdint>
#include <map>

namespace bore::drivers {

namespace {

constexpr std::size_t page_bytes = std::size_t{2} << 20U;

class HugepageMemory final : public packet::TableMemory {
  public:
    ~HugepageMemory() override {
        for (const auto& [at, size_bytes] : mapped_) {
            ::munmap(at, size_bytes);
        }
    }

    std::byte* reserve(std::size_t size_bytes) override {
        // Of 2 MiB more than asked for, the aligned part is used.
        const std::size_t rounded = (size_bytes + page_bytes - 1) / page_bytes * page_bytes;
        void* space = ::mmap(nullptr, rounded + page_bytes, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (space == MAP_FAILED) {
            return nullptr;
        }
        const std::uintptr_t begin = reinterpret_cast<std::uintptr_t>(space);
        const std::uintptr_t aligned = (begin + page_bytes - 1) / page_bytes * page_bytes;
        const std::uintptr_t end = begin + rounded + page_bytes;
        if (aligned > begin) {
            ::munmap(space, aligned - begin);
        }
        if (end > aligned + rounded) {
            // NOLINTNEXTLINE(performance-no-int-to-ptr)
            ::munmap(reinterpret_cast<void*>(aligned + rounded), end - (aligned + rounded));
        }
        auto* at = reinterpret_cast<std::byte*>(aligned);  // NOLINT(performance-no-int-to-ptr)
        mapped_.emplace(at, rounded);
        return at;
    }

    // The pages are taken elsewhere and moved into place: a mapping made in place that fails could
    // leave a hole, into which another thread's memory would come.
    bool commit(std::byte* at, std::size_t size_bytes) override {
        void* pages = ::mmap(
            nullptr, size_bytes, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | static_cast<int>(MAP_HUGE_2MB), -1, 0);
        if (pages == MAP_FAILED) {
            return false;
        }
        // Touched now, with an error instead of a signal where a control group forbids it.
        if (::madvise(pages, size_bytes, MADV_POPULATE_WRITE) != 0 ||
            ::mremap(pages, size_bytes, size_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at) ==
                MAP_FAILED) {
            ::munmap(pages, size_bytes);
            return false;
        }
        return true;
    }

    void release(std::byte* at, std::size_t /*size_bytes*/) override {
        const auto found = mapped_.find(at);
        if (found != mapped_.end()) {
            ::munmap(found->first, found->second);
            mapped_.erase(found);
        }
    }

    std::size_t granule_bytes() const override { return page_bytes; }

  private:
    std::map<std::byte*, std::size_t> mapped_;
};

}  // namespace

std::unique_ptr<packet::TableMemory> make_hugepage_memory() {
    return std::make_unique<HugepageMemory>();
}

}  // namespace bore::drivers
