// The stream driver for hosts where io_uring is forbidden: the same pairs, driven by epoll.
#pragma once

#include <expected>
#include <memory>
#include <string>

#include "drivers/kernel/stream_worker.hpp"

namespace bore::drivers {

// On the thread that will run it. The error is a sentence.
[[nodiscard]] std::expected<std::unique_ptr<StreamWorker>, std::string> make_epoll_worker(
    const WorkerContext& context);

}  // namespace bore::drivers
