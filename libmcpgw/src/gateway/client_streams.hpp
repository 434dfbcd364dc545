// The streams of one client's session: its own (GET), and those of single POSTs that it may resume.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "gateway/event_log.hpp"
#include "mcpgw/authenticator.hpp"
#include "mcpgw/http.hpp"
#include "mcpgw/random.hpp"

namespace mcpgw::detail {

class PostReply;

/// How a session's client is connected.
enum class ClientTransport {
  streamable_http,
  http_sse,  ///< of 2024-11-05: everything goes over the one stream whose end is the session's
};

/// Safe from any thread.
class ClientStreams {
 public:
  ClientStreams(ClientTransport transport, Random& random);

  ClientTransport transport() const noexcept { return transport_; }
  const std::string& epoch() const noexcept { return epoch_; }

  /// Those that are open, and one if the session's own is about to be.
  std::size_t count() const;

  // --- the session's own stream --------------------------------------------------------------------
  /// The stream is about to be opened, and counts as long as this is kept: its client may know of it before
  /// it is open.
  class Opening {
   public:
    explicit Opening(std::shared_ptr<ClientStreams> streams);
    ~Opening();
    Opening(const Opening&) = delete;
    Opening& operator=(const Opening&) = delete;

   private:
    const std::shared_ptr<ClientStreams> streams_;
  };
  /// Replaces an open one. What came after `last` is sent first (without it: what was not sent yet). With
  /// `prime` an event without data tells the client where it is.
  void open(std::shared_ptr<ResponseStream> stream, const Principal& principal,
            const std::optional<EventId>& last, bool prime);
  /// Sends a message, or keeps it for the next stream. False when it is lost: nobody is there, and nothing is
  /// kept on this transport.
  bool send(const std::string& message);
  /// The client has gone. False when that was not the stream in use.
  bool gone(const ResponseStream* stream);
  bool is_open() const;
  /// Who opened it.
  std::optional<Principal> principal() const;
  void close();
  /// False when the client has gone.
  bool keep_alive();

  // --- streams of POSTs ----------------------------------------------------------------------------
  /// Makes it resumable; returns the number of its stream.
  std::uint64_t add(std::shared_ptr<PostReply> reply);
  /// nullptr when nothing is kept of it.
  std::shared_ptr<PostReply> find(const EventId& id) const;
  /// Its answer is there: what is kept of it (`bytes`) stays for a while, within a bound for the session.
  void finished(std::uint64_t number, std::size_t bytes);
  /// Forgets what was kept long enough.
  void sweep(std::chrono::steady_clock::time_point now);
  /// Closes resumed streams of identities that are no longer what they were.
  void check_resumed(const Authenticator& authenticator);

  void clear();

  static constexpr std::size_t kMaxFinished = 32;
  static constexpr std::size_t kMaxFinishedBytes = 2 * 1024 * 1024;
  static constexpr std::chrono::seconds kKeepFinished{60};

 private:
  struct Post {
    std::shared_ptr<PostReply> reply;
    std::optional<std::chrono::steady_clock::time_point> finished;
    std::size_t bytes = 0;
  };
  using Posts = std::map<std::uint64_t, Post>;
  std::vector<std::shared_ptr<PostReply>> posts() const;
  /// Streams of POSTs that were resumed on a GET and are open.
  std::size_t resumed() const;
  /// Forgets a finished one, which `dropped` then holds. Returns the next.
  Posts::iterator drop_locked(Posts::iterator at, std::vector<Post>& dropped);

  const ClientTransport transport_;
  const std::string epoch_;

  mutable std::mutex mutex_;  // guards what follows
  std::shared_ptr<ResponseStream> stream_;
  std::size_t opening_ = 0;
  std::optional<Principal> principal_;
  EventLog log_;
  std::uint64_t delivered_ = 0;  ///< number of the last event that was written to a stream
  Posts posts_;                  // by stream number: oldest first
  std::size_t finished_count_ = 0;
  std::size_t finished_bytes_ = 0;
  std::uint64_t next_post_ = 1;
};

}  // namespace mcpgw::detail
