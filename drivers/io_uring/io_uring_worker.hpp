// The stream driver of choice: the pairs driven by one io_uring per worker.
#pragma once

#include <expected>
#include <memory>
#include <string>

#include "drivers/kernel/stream_worker.hpp"

namespace bore::drivers {

// Whether the running kernel permits io_uring and has what the driver needs (Linux 6.1 has): tried
// out, not guessed from a version. The error is a sentence that names what is missing.
[[nodiscard]] std::expected<void, std::string> probe_io_uring();

// On the thread that will run it. The error is a sentence.
[[nodiscard]] std::expected<std::unique_ptr<StreamWorker>, std::string> make_io_uring_worker(
    const WorkerContext& context);

}  // namespace bore::drivers
