// The table of reasons and the counters that belong to them.
#include <gtest/gtest.h>

#include <string>

#include "dataplane/abi/packet_counters.hpp"

namespace bore::abi {
namespace {

TEST(PacketReasons, EveryReasonHasTheCounterOfItsName){
#define BORE_CASE(reason, help)                                                                 \
    EXPECT_EQ(                                                                                  \
        packet_worker_counter_infos[static_cast<std::size_t>(counter_of(PacketReason::reason))] \
            .name,                                                                              \
        std::string("packet_") + #reason + "_total");
    BORE_REASONS_TO_KERNEL(BORE_CASE) BORE_REASONS_TO_DROP(BORE_CASE)
#undef BORE_CASE
}

TEST(StreamReasons, EveryReasonHasTheCounterOfItsName){
#define BORE_CASE(reason, help)                                                                   \
    EXPECT_EQ(                                                                                    \
        slow_path_counter_infos[static_cast<std::size_t>(counter_of(StreamReason::reason))].name, \
        std::string("stream_") + #reason + "_total");
    BORE_STREAM_REASONS(BORE_CASE)
#undef BORE_CASE
}

TEST(PacketReasons, KnowWhatGoesToTheKernel) {
#define BORE_CASE(reason, help) EXPECT_TRUE(goes_to_kernel(PacketReason::reason));
    BORE_REASONS_TO_KERNEL(BORE_CASE)
#undef BORE_CASE
#define BORE_CASE(reason, help) EXPECT_FALSE(goes_to_kernel(PacketReason::reason));
    BORE_REASONS_TO_DROP(BORE_CASE)
#undef BORE_CASE
    EXPECT_FALSE(goes_to_kernel(PacketReason::spliced));
}

}  // namespace
}  // namespace bore::abi
