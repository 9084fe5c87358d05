// pipe2, F_SETPIPE_SZ and splice(2).
#include "drivers/kernel/pipe_pool.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "dataplane/abi/limits.hpp"

namespace bore::drivers {

using stream::IoResult;

namespace {

void close_pipe(const Pipe& pipe) {
    ::close(pipe.read_end);
    ::close(pipe.write_end);
}

}  // namespace

PipePool::~PipePool() {
    for (const Pipe& pipe : idle_) {
        close_pipe(pipe);
    }
}

std::optional<Pipe> PipePool::lend() {
    if (lent_count_ >= max_count_) {
        return std::nullopt;
    }
    if (!idle_.empty()) {
        const Pipe pipe = idle_.back();
        idle_.pop_back();
        ++lent_count_;
        return pipe;
    }
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_NONBLOCK | O_CLOEXEC) != 0) {
        return std::nullopt;
    }
    const Pipe pipe{.read_end = ends[0], .write_end = ends[1]};
    // Beyond fs.pipe-user-pages-soft an unprivileged process gets less: halve until it is granted,
    // and do without when less than 64 KiB is left (a copy is cheaper then).
    int size_bytes = static_cast<int>(abi::pipe_bytes);
    while (::fcntl(pipe.write_end, F_SETPIPE_SZ, size_bytes) < 0) {
        size_bytes /= 2;
        if (size_bytes < 64 * 1024) {
            close_pipe(pipe);
            return std::nullopt;
        }
    }
    ++lent_count_;
    return pipe;
}

void PipePool::give_back(Pipe pipe, bool empty) {
    --lent_count_;
    if (empty && idle_.size() < kept_count) {
        idle_.push_back(pipe);
    } else {
        close_pipe(pipe);
    }
}

IoResult splice_from_socket(int socket, const Pipe& pipe, std::size_t max_bytes) {
    const ssize_t moved = ::splice(socket, nullptr, pipe.write_end, nullptr, max_bytes,
                                   SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    return IoResult::from_call(moved, errno);
}

IoResult splice_to_socket(const Pipe& pipe, int socket, std::size_t max_bytes) {
    const ssize_t moved = ::splice(pipe.read_end, nullptr, socket, nullptr, max_bytes,
                                   SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    return IoResult::from_call(moved, errno);
}

}  // namespace bore::drivers
