// Every text of wire-protocol §2, §5 and §6 as literals of their own, so that an edit of the header
// is noticed; and each goes into a frame whole.
#include "controlplane/bore/error_texts.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "controlplane/bore/message.hpp"

namespace bore::protocol {
namespace {

using namespace error_text;

constexpr std::pair<std::string_view, std::string_view> texts[] = {
    {frame_too_long, "frame error, invalid byte length"},
    {unparsable, "unable to parse message"},
    {timed_out, "timed out waiting for initial message"},
    {invalid_secret, "invalid secret"},
    {secret_required, "server requires secret, but no secret was provided"},
    {expected_first_message, "Expected authentication or hello"},
    {method_not_supported, "Authentication method not supported. Use shared secret mode."},
    {authentication_required, "Authentication required. Please provide a valid API key."},
    {service_unavailable, "Authentication service unavailable"},
    {invalid_api_key, "Invalid API key"},
    {usage_exceeded, "Subscription expired or usage limit exceeded. Please visit the dashboard."},
    {invalid_service_data, "Authentication service returned invalid data. Please contact support."},
    {protocol_error, "Protocol error"},
    {port_not_allowed, "client port number not in allowed range"},
    {port_in_use, "port already in use"},
    {permission_denied, "permission denied"},
    {bind_failed, "failed to bind to port"},
    {no_port_available, "failed to find an available port"},
};

TEST(ErrorTexts, are_byte_for_byte_those_of_the_protocol) {
    for (const auto& [ours, expected] : texts) {
        EXPECT_EQ(ours, expected);
    }
}

TEST(ErrorTexts, go_into_a_frame_whole) {
    for (const auto& [ours, expected] : texts) {
        std::string frame = "{\"Error\":\"" + std::string{expected} + "\"}";
        frame += '\0';
        EXPECT_EQ(encode_error(ours).view(), frame);
    }
}

}  // namespace
}  // namespace bore::protocol
