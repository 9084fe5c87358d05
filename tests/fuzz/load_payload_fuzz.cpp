// What a visitor may send to the load generator's service: an opening that is taken says the same
// when it is sent again, and bytes in any pieces are found wrong at the place where a naive
// comparison finds them.
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "bench/load/payload.hpp"
#include "dataplane/base/check.hpp"
#include "tests/fuzz/fuzz_input.hpp"

using bore::bench::Direction;
using bore::bench::Opening;
using bore::bench::PatternReceiver;
using bore::bench::UploadReport;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bore::fuzz::Input input{data, size};
    const std::string head = input.text(bore::bench::opening_size_bytes);
    const std::size_t piece_size = 1 + input.byte();
    const std::size_t wrong_from = input.byte() * std::size_t{8};
    const std::string noise = input.rest();

    const std::optional<Opening> opening = Opening::decode(std::as_bytes(std::span(head)));
    if (!opening) {
        return 0;
    }
    const auto encoded = opening->encode();
    const std::optional<Opening> again = Opening::decode(encoded);
    BORE_CHECK(again && again->encode() == encoded, "an opening survives");

    // The right bytes, and from a place on whatever the fuzzer has.
    const std::uint64_t begin = opening->begin(Direction::up);
    std::string bytes(wrong_from, '\0');
    std::memcpy(bytes.data(), bore::bench::pattern_at(begin, wrong_from).data(), wrong_from);
    bytes += noise.substr(0, bore::bench::chunk_size_bytes - wrong_from);
    std::optional<std::uint64_t> expected;
    const auto pattern = bore::bench::pattern_at(begin, bytes.size());
    for (std::size_t at = 0; at < bytes.size() && !expected; ++at) {
        if (static_cast<std::byte>(bytes[at]) != pattern[at]) {
            expected = at;
        }
    }
    PatternReceiver receiver(begin, bore::bench::endless, true);
    for (std::size_t at = 0; at < bytes.size(); at += piece_size) {
        const std::string piece = bytes.substr(at, piece_size);
        receiver.take(std::as_bytes(std::span(piece)));
    }
    BORE_CHECK(receiver.received_bytes() == bytes.size(), "every byte is counted");
    BORE_CHECK(receiver.first_mismatch() == expected, "the first wrong byte is found");
    const UploadReport report{.received_bytes = bytes.size(), .first_mismatch = expected};
    BORE_CHECK(UploadReport::decode(report.encode()).first_mismatch == expected,
               "a report survives");
    return 0;
}
