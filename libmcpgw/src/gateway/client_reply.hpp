// Where the answer to one POST of a client goes, with the messages that precede it.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "gateway/client_streams.hpp"
#include "gateway/core.hpp"
#include "runtime/reminders.hpp"

namespace mcpgw::detail {

/// Which forms of an answer the client takes.
struct Accepts {
  bool json = true;
  bool sse = true;
};

/// By the Accept header of a POST: absent, both; the more specific range decides (RFC 9110, 12.5.1).
Accepts read_accept(const std::string* header);

/// Counts as a request in flight while it exists.
class InFlight {
 public:
  explicit InFlight(std::shared_ptr<GatewayCore> core) : core_(std::move(core)) {
    core_->in_flight.fetch_add(1, std::memory_order_relaxed);
  }
  ~InFlight() { core_->in_flight.fetch_sub(1, std::memory_order_relaxed); }
  InFlight(const InFlight&) = delete;
  InFlight& operator=(const InFlight&) = delete;

 private:
  const std::shared_ptr<GatewayCore> core_;
};

/// Safe from any thread.
class Reply {
 public:
  virtual ~Reply() = default;
  /// What it is for has begun: tells the client what must be told first, and learns when the client goes.
  virtual void begin() = 0;
  /// Lets the client see that it is alive, when nothing is sent for a while.
  virtual void watch() {}
  /// Sends a message before the answer; false when it cannot reach the client.
  virtual bool emit(const std::string& message) = 0;
  /// The answer, or one of several to a batch: that to its request number `at`.
  virtual void answer(std::string message, std::size_t at = 0) = 0;
};

/// The HTTP answer of one POST: JSON when the answer comes alone and soon, else an event stream. A stream
/// whose client has gone waits for it to come back (GET with Last-Event-ID) when it has been told an event
/// id.
class PostReply final : public Reply, public Reminded, public std::enable_shared_from_this<PostReply> {
 public:
  struct Options {
    Accepts accepts;
    std::shared_ptr<GatewayCore> core;
    std::shared_ptr<ClientStreams> streams;  ///< null: cannot be resumed
    bool prime = false;                      ///< begins with an event without data (2025-11-25 and later)
    bool batch = false;                      ///< answers in JSON are one array
    std::size_t answers = 1;
    /// The client has gone for good before all answers were there. Once, from any thread.
    std::function<void()> on_gone;
  };
  /// `headers`: of the answer, whichever form it takes.
  PostReply(Loop& loop, std::shared_ptr<Responder> responder, HttpHeaders headers, Options options);

  void begin() override;
  void watch() override;
  bool emit(const std::string& message) override;
  void answer(std::string message, std::size_t at = 0) override;

  /// Goes on, on a stream of a GET, with what came after `after`.
  void resume(std::shared_ptr<ResponseStream> stream, const Principal& principal, std::uint64_t after);
  /// The connection of this stream has ended; of the POST itself when null.
  void lost(const ResponseStream* stream);
  /// Ends a resumed connection, not the call.
  void disconnect();
  /// Who resumed it, while that connection is open.
  std::optional<Principal> resumed_by() const;

 private:
  bool start_locked();
  void deliver_locked(const std::string& message, const std::string& instead);
  /// Nothing has been sent for a while.
  void on_reminder() override;
  void wait_for_client();

  Loop& loop_;
  const Options options_;

  mutable std::mutex mutex_;              // guards what follows
  HttpHeaders headers_;                   ///< of the answer, until it has begun
  std::shared_ptr<Responder> responder_;  ///< until it has been used
  std::shared_ptr<ResponseStream> stream_;
  bool started_ = false;  ///< it has become a stream
  bool gone_ = false;     ///< nobody reads it now
  std::optional<Principal> resumed_by_;
  const ResponseStream* resumed_stream_ = nullptr;  ///< to be compared, never used
  std::optional<EventLog> log_;
  std::uint64_t number_ = 0;
  bool watched_ = false;
  std::size_t open_;                           ///< answers still to come
  std::vector<std::string> answers_;           ///< as long as it is no stream, in the requests' order
  std::uint64_t absence_ = 0;                  ///< counts the times that the client went away
  std::unique_ptr<InFlight> in_flight_;        ///< while nobody's request holds it
  std::optional<Reminders::Ticket> reminder_;  ///< of the loop
};

/// HTTP+SSE of 2024-11-05: the POST is answered with 202, everything goes over the session's stream.
class SessionStreamReply final : public Reply {
 public:
  SessionStreamReply(std::shared_ptr<GatewayCore> core, std::shared_ptr<Responder> responder,
                     std::shared_ptr<ClientStreams> streams, std::size_t answers)
      : streams_(std::move(streams)),
        in_flight_(std::make_unique<InFlight>(std::move(core))),
        responder_(std::move(responder)),
        open_(answers) {}

  void begin() override;
  bool emit(const std::string& message) override { return streams_->send(message); }
  void answer(std::string message, std::size_t at = 0) override;

 private:
  const std::shared_ptr<ClientStreams> streams_;
  std::mutex mutex_;  // guards what follows
  std::unique_ptr<InFlight> in_flight_;
  std::shared_ptr<Responder> responder_;
  std::size_t open_;
};

}  // namespace mcpgw::detail
