// Set-up of a ring and its buffer group.
#include "drivers/io_uring/ring.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "dataplane/base/check.hpp"

namespace bore::drivers {

namespace {

std::string failure(const char* what, int error_number) {
    std::string text = std::string(what) + ": " + std::strerror(error_number);
    if (error_number == EPERM || error_number == EACCES) {
        text += " (sysctl kernel.io_uring_disabled, or the container's seccomp profile)";
    } else if (error_number == ENOSYS) {
        text += " (a kernel or container without io_uring)";
    } else if (error_number == EINVAL) {
        text += " (needs Linux 6.1)";
    } else if (error_number == ENOMEM) {
        text += " (raise RLIMIT_MEMLOCK)";
    }
    return text;
}

}  // namespace

std::expected<std::unique_ptr<Ring>, std::string> Ring::make(const RingSizes& sizes) {
    std::unique_ptr<Ring> ring(new Ring(sizes));
    std::string error = ring->set_up();
    if (!error.empty()) {
        return std::unexpected(std::move(error));
    }
    return ring;
}

std::string Ring::set_up() {
    io_uring_params parameters{};
    // DEFER_TASKRUN (6.1): completions run when we ask for them, not in the middle of our work.
    parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                       IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    parameters.cq_entries = sizes_.completion_entries;
    const int made = io_uring_queue_init_params(sizes_.submission_entries, &ring_, &parameters);
    if (made != 0) {
        return failure("io_uring_setup", -made);
    }
    ring_made_ = true;
    // Saves looking the ring's descriptor up at every enter; not vital.
    (void)io_uring_register_ring_fd(&ring_);

    const std::size_t ring_bytes = sizes_.buffer_count * sizeof(io_uring_buf);
    const std::size_t page_bytes = 4'096;
    const std::size_t ring_pages_bytes = (ring_bytes + page_bytes - 1) / page_bytes * page_bytes;
    mapped_bytes_ = ring_pages_bytes + sizes_.buffer_count * sizes_.buffer_bytes;
    void* memory =
        ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        mapped_bytes_ = 0;
        return failure("mmap of the receive buffers", errno);
    }
    buffer_ring_ = static_cast<io_uring_buf_ring*>(memory);
    buffers_ = static_cast<std::byte*>(memory) + ring_pages_bytes;
    io_uring_buf_reg registration{};
    registration.ring_addr = reinterpret_cast<std::uintptr_t>(memory);
    registration.ring_entries = sizes_.buffer_count;
    registration.bgid = buffer_group;
    const int registered = io_uring_register_buf_ring(&ring_, &registration, 0);
    if (registered != 0) {
        return failure("registering provided buffers", -registered);
    }
    io_uring_buf_ring_init(buffer_ring_);
    for (unsigned buffer_id = 0; buffer_id < sizes_.buffer_count; ++buffer_id) {
        recycle(buffer_id);
    }
    return {};
}

Ring::~Ring() {
    if (ring_made_) {
        io_uring_queue_exit(&ring_);
    }
    if (mapped_bytes_ != 0) {
        ::munmap(static_cast<void*>(buffer_ring_), mapped_bytes_);
    }
}

io_uring_sqe& Ring::entry() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    while (entry == nullptr) {
        submit();
        entry = io_uring_get_sqe(&ring_);
    }
    return *entry;
}

void Ring::submit() {
    const int result = io_uring_submit_and_get_events(&ring_);
    BORE_CHECK(result >= 0 || result == -EINTR || result == -EBUSY || result == -EAGAIN,
               "io_uring_enter failed");
}

void Ring::submit_and_wait(std::optional<base::Nanoseconds> timeout_ns) {
    __kernel_timespec timeout{};
    if (timeout_ns) {
        timeout.tv_sec = static_cast<decltype(timeout.tv_sec)>(*timeout_ns / base::second_ns);
        timeout.tv_nsec = static_cast<decltype(timeout.tv_nsec)>(*timeout_ns % base::second_ns);
    }
    io_uring_cqe* completion = nullptr;
    const int result = io_uring_submit_and_wait_timeout(&ring_, &completion, 1,
                                                        timeout_ns ? &timeout : nullptr, nullptr);
    BORE_CHECK(result >= 0 || result == -ETIME || result == -EINTR || result == -EBUSY ||
                   result == -EAGAIN,
               "io_uring_enter failed");
}

std::span<const std::byte> Ring::buffer(unsigned buffer_id, std::size_t bytes) const {
    return {buffers_ + buffer_id * sizes_.buffer_bytes, bytes};
}

void Ring::recycle(unsigned buffer_id) {
    io_uring_buf_ring_add(buffer_ring_, buffers_ + buffer_id * sizes_.buffer_bytes,
                          static_cast<unsigned>(sizes_.buffer_bytes),
                          static_cast<unsigned short>(buffer_id),
                          io_uring_buf_ring_mask(sizes_.buffer_count), 0);
    io_uring_buf_ring_advance(buffer_ring_, 1);
}

}  // namespace bore::drivers
