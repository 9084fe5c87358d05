// The sentences.
#include "controlplane/client/explain.hpp"

#include <boost/asio/error.hpp>
#include <boost/system/errc.hpp>

#include "controlplane/bore/error_texts.hpp"

namespace bore::client {

namespace {

namespace errc = boost::system::errc;

std::string quoted(std::string_view text) {
    return "\"" + std::string(text) + "\"";
}

std::string remedy_for_unreachable(std::string_view relay, const boost::system::error_code& error) {
    if (error == errc::connection_refused) {
        return "nothing listens there: is bore-server running, and are --to and --control-port "
               "right?";
    }
    if (error == errc::timed_out) {
        return "is the address right, and does every firewall on the way let TCP to " +
               std::string(relay) + " through?";
    }
    if (error == errc::network_unreachable || error == errc::host_unreachable ||
        error == errc::network_down) {
        return "there is no route to it: is this machine's network up?";
    }
    if (error == errc::permission_denied || error == errc::operation_not_permitted) {
        return "a local firewall or sandbox forbids the connection";
    }
    if (error == errc::too_many_files_open || error == errc::too_many_files_open_in_system) {
        return "this machine's limit of open files is reached: raise it with ulimit -n";
    }
    return "is --to right?";
}

bool contains(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

std::string remedy_for_authentication(std::string_view text,
                                      const protocol::ClientOptions& options) {
    using namespace protocol::error_text;
    if (!options.secret) {
        return "the relay wants a secret: give it with --secret or BORE_SECRET";
    }
    if (contains(text, invalid_secret)) {
        return "the secret of --secret or BORE_SECRET is not the relay's";
    }
    if (contains(text, "no secret was required")) {
        return "the relay wants no secret, so it cannot be the one that this secret is for; leave "
               "--secret and BORE_SECRET out or correct --to";
    }
    if (contains(text, secret_required) && options.mode == protocol::DialectMode::fork) {
        return "the relay speaks the other dialect: leave --auth-dialect out";
    }
    return "is the secret of --secret or BORE_SECRET the right one for this relay?";
}

std::string remedy_for_port(std::string_view text, std::uint16_t port) {
    using namespace protocol::error_text;
    const std::string asked = "public port " + std::to_string(port);
    if (contains(text, port_in_use)) {
        return asked + " is taken: choose another one or leave --port out to get a free one";
    }
    if (contains(text, port_not_allowed)) {
        return asked + " is not in the relay's range: choose another one or leave --port out";
    }
    return "the relay could not open " + asked + ": choose another one or leave --port out";
}

}  // namespace

std::string host_and_port(std::string_view host, std::uint16_t port) {
    const bool needs_brackets = host.find(':') != std::string_view::npos && !host.starts_with('[');
    std::string text;
    text += needs_brackets ? "[" : "";
    text += host;
    text += needs_brackets ? "]:" : ":";
    return text + std::to_string(port);
}

std::string explain_unresolved(std::string_view relay_host,
                               const boost::system::error_code& error) {
    const std::string name = quoted(relay_host);
    if (error == boost::asio::error::host_not_found_try_again) {
        return "cannot look up the relay's name " + name +
               ": the name service does not answer; is this machine's network up?";
    }
    return "the relay's name " + name + " does not exist (" + error.message() +
           "); is --to spelled right?";
}

std::string explain_unreachable(std::string_view relay, std::string_view address,
                                const boost::system::error_code& error) {
    std::string text = "cannot reach the relay " + std::string(relay);
    if (address != relay) {
        text += " (" + std::string(address) + ")";
    }
    return text + ": " + error.message() + "; " + remedy_for_unreachable(relay, error);
}

std::string explain_local_down(std::string_view service, const boost::system::error_code& error) {
    std::string text = "a visitor came, but the local service " + std::string(service) +
                       " cannot be reached: " + error.message() + "; ";
    if (error == errc::connection_refused) {
        return text + "nothing listens there: start it, or correct the port or --local-host";
    }
    if (error == errc::too_many_files_open || error == errc::too_many_files_open_in_system) {
        return text + "the limit of open files is reached: raise it with ulimit -n";
    }
    return text + "is --local-host right and the service up?";
}

std::string explain_handshake(std::string_view relay, const protocol::ClientStep& failed,
                              const protocol::ClientOptions& options, std::uint16_t port) {
    using Failure = protocol::ClientStep::Failure;
    const std::string front = "the relay " + std::string(relay) + ": " + failed.text + "; ";
    switch (failed.failure) {
        case Failure::authentication:
            return front + remedy_for_authentication(failed.text, options);
        case Failure::port:
            return front + remedy_for_port(failed.text, port);
        case Failure::refused:
            return front + "the relay's operator can say why";
        case Failure::protocol:
            return std::string(relay) + " does not speak the bore protocol: " + failed.text +
                   "; are --to and --control-port right?";
        case Failure::lost:
        case Failure::none:
            break;
    }
    // A relay that waits for the other dialect says nothing until one of the two gives up.
    return front + (options.mode != protocol::DialectMode::automatic
                        ? "it may speak the other dialect: leave --auth-dialect out"
                        : "is it a bore relay, and is it healthy?");
}

std::string explain_foreign_peer(std::string_view relay, std::string_view first_bytes) {
    const char* kind = nullptr;
    if (first_bytes.starts_with("HTTP/") || first_bytes.starts_with("<")) {
        kind = "a web server";
    } else if (first_bytes.starts_with("SSH-")) {
        kind = "an SSH server";
    } else if (first_bytes.starts_with("220")) {
        kind = "a mail or FTP server";
    } else if (first_bytes.starts_with("\x15\x03")) {
        kind = "a TLS server";
    }
    if (kind == nullptr) {
        return {};
    }
    return std::string(relay) + " is not a bore relay, it answers like " + kind +
           "; are --to and --control-port right?";
}

}  // namespace bore::client
