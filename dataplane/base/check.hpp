// Broken invariants end the process with a message; expected failures are returned values.
// Called from everywhere; compiled in all builds, because a relay that goes on with a broken
// invariant corrupts somebody's stream.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace bore::base {

[[noreturn]] inline void check_failed(const char* condition, const char* message, const char* file,
                                      int line) {
    std::fprintf(stderr, "%s:%d: broken invariant: %s (%s)\n", file, line, message, condition);
    std::abort();
}

}  // namespace bore::base

#define BORE_CHECK(condition, message)                                           \
    do {                                                                         \
        if (!(condition)) [[unlikely]]                                           \
            ::bore::base::check_failed(#condition, message, __FILE__, __LINE__); \
    } while (false)
