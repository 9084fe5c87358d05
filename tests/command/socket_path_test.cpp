// The folders that relay and borectl agree on.
#include "controlplane/command/socket_path.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace bore::command {
namespace {

using ::testing::ElementsAre;

TEST(SocketPath, FoldersInTheirOrder) {
    EXPECT_THAT(socket_folders({}), ElementsAre("/run/bore"));
    EXPECT_THAT(socket_folders({{"RUNTIME_DIRECTORY", "/run/relays:/run/other"},
                                {"XDG_RUNTIME_DIR", "/run/user/1000"}}),
                ElementsAre("/run/relays", "/run/bore", "/run/user/1000/bore"));
    EXPECT_THAT(socket_folders({{"RUNTIME_DIRECTORY", "/run/bore"}}), ElementsAre("/run/bore"))
        << "each once";
    EXPECT_THAT(socket_folders({{"RUNTIME_DIRECTORY", "relative"}, {"XDG_RUNTIME_DIR", ""}}),
                ElementsAre("/run/bore"))
        << "only absolute ones";
}

TEST(SocketPath, NamedAfterTheRelay) {
    EXPECT_EQ(socket_path("/run/bore", "eu-1"), "/run/bore/eu-1.sock");
}

}  // namespace
}  // namespace bore::command
