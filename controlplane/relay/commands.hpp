// What an operator's requests do to the relay, and their answers in JSON. Between the control
// socket, which knows lines, and the server, which knows tunnels. Control thread only.
#pragma once

#include <string>

#include "controlplane/command/request.hpp"
#include "controlplane/relay/control_socket.hpp"

namespace bore::relay {

class Server;

class Commands final : public ControlSocket::Handler {
  public:
    explicit Commands(Server& server) : server_(server) {}

    void on_request(const command::Request& request, const ControlPeer& peer,
                    ControlSocket::Answer answer) override;

  private:
    [[nodiscard]] std::string carry_out(const command::Request& request);
    [[nodiscard]] std::string ping() const;
    [[nodiscard]] std::string kill(const command::Kill& wanted);
    [[nodiscard]] std::string drain(const command::Drain& wanted);
    [[nodiscard]] std::string undrain();
    [[nodiscard]] std::string reload();
    [[nodiscard]] std::string set_log_level(config::LogLevel level);
    void list_flows(std::uint32_t from, ControlSocket::Answer answer);

    Server& server_;
};

}  // namespace bore::relay
