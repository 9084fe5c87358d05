// The client's log: lines of text or JSON on standard error; standard output is for the public
// addresses alone. Called once by main.cpp.
#pragma once

#include "controlplane/config/client_config.hpp"

namespace bore::client {

void set_up_logging(const config::ClientConfig& config);

}  // namespace bore::client
