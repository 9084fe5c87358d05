// Two ends of a control-port connection talk over a simulated network: the relay's handshake with
// its frame reader and judge on one side, a scripted client on the other, each direction with a
// latency, no socket, no real time. Used by the compatibility matrix.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "controlplane/bore/frame.hpp"
#include "controlplane/bore/server_handshake.hpp"

namespace bore::protocol::testing_support {

using base::Nanoseconds;

// A client as its users know it: it sends, it reacts to frames, it gives up after a while.
class ScriptedClient {
  public:
    virtual ~ScriptedClient() = default;

    // Bytes to send; `outcome()` is asked after each call.
    virtual std::string start(Nanoseconds now) = 0;
    virtual std::string on_frame(const std::string& json) = 0;
    virtual std::string on_timer(Nanoseconds now) = 0;
    virtual void on_end_of_stream() = 0;
    [[nodiscard]] virtual Nanoseconds deadline() const = 0;

    // Set once: "ok", or what the user reads.
    [[nodiscard]] const std::optional<std::string>& outcome() const { return outcome_; }

  protected:
    std::optional<std::string> outcome_;
};

// How the relay judges: an answer and after how long it comes.
struct Judgement {
    Verdict verdict;
    Nanoseconds delay = 0;
};
using Judge = std::function<Judgement(const Credential&)>;

// The relay accepts one latency after the client was told that it is connected; that is when a
// first packet sent at once arrives, too, unless it was lost and came with a retransmission.
struct Network {
    Nanoseconds latency = 50 * base::microsecond_ns;
    Nanoseconds first_packet_delay = 0;
};

inline std::ostream& operator<<(std::ostream& out, const Network& network) {
    return out << " latency " << network.latency / base::microsecond_ns << " us, first packet +"
               << network.first_packet_delay / base::microsecond_ns << " us";
}

class Conversation {
  public:
    static constexpr std::uint16_t public_port = 34185;

    Conversation(const HandshakeOptions& options, DialectHint hint, Judge judge,
                 ScriptedClient& client, const Network& network)
        : handshake_(options),
          hint_(hint),
          judge_(std::move(judge)),
          client_(client),
          network_(network) {}

    // Until the client knows its outcome and the relay is done. The relay's last step.
    Step run() {
        std::string opening = client_.start(now_);
        now_ += network_.latency;
        act(handshake_.start(now_, hint_));
        to_server(std::move(opening), now_ + network_.first_packet_delay);
        while (!client_.outcome() || !handshake_.finished()) {
            if (!advance()) {
                break;
            }
        }
        return last_;
    }

    [[nodiscard]] Nanoseconds now() const { return now_; }
    [[nodiscard]] int challenge_count() const { return challenge_count_; }
    [[nodiscard]] const std::string& sent_by_server() const { return sent_by_server_; }

  private:
    struct Packet {
        Nanoseconds due;
        std::string bytes;  // empty = end of the stream
    };

    void to_server(std::string bytes, Nanoseconds due) {
        if (!bytes.empty()) {
            to_server_.push_back({due, std::move(bytes)});
        }
    }
    void to_client(std::string bytes) {
        to_client_.push_back({now_ + network_.latency, std::move(bytes)});
    }

    // The next event in time; false when nothing can happen any more.
    bool advance() {
        std::optional<Nanoseconds> next;
        const auto consider = [&](Nanoseconds due) { next = next ? std::min(*next, due) : due; };
        if (!to_server_.empty()) {
            consider(to_server_.front().due);
        }
        if (!to_client_.empty()) {
            consider(to_client_.front().due);
        }
        if (verdict_due_) {
            consider(*verdict_due_);
        }
        if (!handshake_.finished()) {
            consider(handshake_.deadline());
        }
        if (!client_.outcome()) {
            consider(client_.deadline());
        }
        if (!next) {
            return false;
        }
        now_ = std::max(now_, *next);
        deliver_to_server();
        deliver_to_client();
        if (verdict_due_ && now_ >= *verdict_due_) {
            verdict_due_.reset();
            act(handshake_.on_verdict(verdict_));
            pump();
        }
        if (!handshake_.finished()) {
            act(handshake_.on_timer(now_));
        }
        if (!client_.outcome()) {
            to_server(client_.on_timer(now_), now_ + network_.latency);
            client_may_hang_up();
        }
        return true;
    }

    void deliver_to_server() {
        while (!to_server_.empty() && to_server_.front().due <= now_) {
            const Packet packet = std::move(to_server_.front());
            to_server_.pop_front();
            if (handshake_.finished()) {
                continue;
            }
            if (packet.bytes.empty()) {
                act(handshake_.on_end_of_stream());
                continue;
            }
            handshake_.on_bytes();
            unread_.push_back(packet.bytes);
            pump();
        }
    }

    // Frames go to the handshake while it wants them; what is pipelined behind a verdict waits.
    void pump() {
        while (handshake_.wants_frame()) {
            const auto result = reader_.next();
            if (result.status == FrameReader::Status::frame) {
                act(handshake_.on_frame(result.json));
            } else if (result.status == FrameReader::Status::too_long) {
                act(handshake_.on_frame_too_long());
            } else if (!unread_.empty()) {
                reading_ = std::move(unread_.front());
                unread_.pop_front();
                reader_.feed(reading_);
            } else {
                return;
            }
        }
    }

    void act(const Step& step) {
        if (!step.send.empty()) {
            challenge_count_ += step.send.starts_with("{\"Challenge\"") ? 1 : 0;
            send(std::string{step.send});
        }
        if (step.next == Step::Next::wait) {
            return;
        }
        last_ = step;
        last_.send = {};
        if (step.next == Step::Next::verify) {
            const Judgement judgement = judge_(handshake_.credential());
            verdict_ = judgement.verdict;
            verdict_due_ = now_ + judgement.delay;
        } else if (step.next == Step::Next::open_tunnel) {
            send(std::string{encode_hello(public_port).view()});
        } else if (step.next == Step::Next::close) {
            to_client({});
        }
    }

    void send(std::string bytes) {
        sent_by_server_ += bytes;
        to_client(std::move(bytes));
    }

    void deliver_to_client() {
        while (!to_client_.empty() && to_client_.front().due <= now_) {
            const std::string bytes = std::move(to_client_.front().bytes);
            to_client_.pop_front();
            if (client_.outcome()) {
                continue;
            }
            if (bytes.empty()) {
                client_.on_end_of_stream();
                client_may_hang_up();
                continue;
            }
            client_reader_.feed(bytes);
            for (auto frame = client_reader_.next(); frame.status == FrameReader::Status::frame;
                 frame = client_reader_.next()) {
                to_server(client_.on_frame(std::string{frame.json}), now_ + network_.latency);
                client_may_hang_up();
            }
        }
    }

    void client_may_hang_up() {
        if (client_.outcome() && *client_.outcome() != "ok" && !hung_up_) {
            hung_up_ = true;
            to_server_.push_back({now_ + network_.latency, {}});
        }
    }

    ServerHandshake handshake_;
    DialectHint hint_;
    Judge judge_;
    ScriptedClient& client_;
    Network network_;
    Nanoseconds now_ = 1'000 * base::second_ns;
    FrameReader reader_;
    FrameReader client_reader_;
    std::string reading_;
    std::deque<std::string> unread_;
    std::deque<Packet> to_server_;
    std::deque<Packet> to_client_;
    std::optional<Nanoseconds> verdict_due_;
    Verdict verdict_;
    Step last_;
    int challenge_count_ = 0;
    bool hung_up_ = false;
    std::string sent_by_server_;
};

}  // namespace bore::protocol::testing_support
