// Pipes for bulk directions: made on demand, kept for the next one, bounded per worker. A pipe
// moves pages between two sockets without a copy; it costs two descriptors and up to 1 MiB of
// kernel memory while it holds data.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "dataplane/stream/io.hpp"

namespace bore::drivers {

struct Pipe {
    int read_end{-1};
    int write_end{-1};
};

class PipePool {
  public:
    explicit PipePool(std::size_t max_count) : max_count_(max_count) {}
    ~PipePool();
    PipePool(const PipePool&) = delete;
    PipePool& operator=(const PipePool&) = delete;

    // Nothing when the bound is reached or the kernel has none to give.
    [[nodiscard]] std::optional<Pipe> lend();
    void give_back(Pipe pipe, bool empty);

    [[nodiscard]] std::size_t lent_count() const { return lent_count_; }

  private:
    // Idle pipes hold no pages; this many are kept for the next bulk flow.
    static constexpr std::size_t kept_count = 32;

    std::size_t max_count_;
    std::size_t lent_count_{0};
    std::vector<Pipe> idle_;
};

[[nodiscard]] stream::IoResult splice_from_socket(int socket, const Pipe& pipe,
                                                  std::size_t max_bytes);
[[nodiscard]] stream::IoResult splice_to_socket(const Pipe& pipe, int socket,
                                                std::size_t max_bytes);

}  // namespace bore::drivers
