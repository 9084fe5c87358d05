// Every text that the protocol puts into an Error frame, byte for byte: clients and their users'
// scripts match them (wire-protocol §2, §5, §6). No other file may spell one of them out.
#pragma once

#include <string_view>

namespace bore::protocol::error_text {

// Receiving (§2)
inline constexpr std::string_view frame_too_long = "frame error, invalid byte length";
inline constexpr std::string_view unparsable = "unable to parse message";
inline constexpr std::string_view timed_out = "timed out waiting for initial message";

// Shared secret (§5.1)
inline constexpr std::string_view invalid_secret = "invalid secret";
inline constexpr std::string_view secret_required =
    "server requires secret, but no secret was provided";

// First message in the fork's dialect (§5.3)
inline constexpr std::string_view expected_first_message = "Expected authentication or hello";
inline constexpr std::string_view method_not_supported =
    "Authentication method not supported. Use shared secret mode.";
inline constexpr std::string_view authentication_required =
    "Authentication required. Please provide a valid API key.";

// Token path (§5.3, in the order of its steps)
inline constexpr std::string_view service_unavailable = "Authentication service unavailable";
inline constexpr std::string_view invalid_api_key = "Invalid API key";
inline constexpr std::string_view usage_exceeded =
    "Subscription expired or usage limit exceeded. Please visit the dashboard.";
inline constexpr std::string_view invalid_service_data =
    "Authentication service returned invalid data. Please contact support.";
inline constexpr std::string_view protocol_error = "Protocol error";

// Ports (§6.1)
inline constexpr std::string_view port_not_allowed = "client port number not in allowed range";
inline constexpr std::string_view port_in_use = "port already in use";
inline constexpr std::string_view permission_denied = "permission denied";
inline constexpr std::string_view bind_failed = "failed to bind to port";
inline constexpr std::string_view no_port_available = "failed to find an available port";

}  // namespace bore::protocol::error_text
