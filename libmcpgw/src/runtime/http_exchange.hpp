// One request and its answer on one connection.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "runtime/http_client.hpp"
#include "runtime/http_parser.hpp"
#include "runtime/http_pool.hpp"

namespace mcpgw::detail {

/// What cancel() acts upon: the use of a connection that stands for a send().
struct CancelSource::State {
  std::mutex mutex;
  bool cancelled = false;
  Loop* loop = nullptr;  // valid while `target` is set
  std::weak_ptr<Connection> target;
  std::uint64_t use = 0;

  /// False when it has been cancelled already.
  bool attach(const std::shared_ptr<Connection>& connection);
  void detach();
};

class Exchange final : public HttpExchange {
 public:
  Exchange(std::shared_ptr<HttpPool> pool, std::shared_ptr<Connection> connection,
           std::shared_ptr<CancelSource::State> cancel, bool head_request, std::size_t max_header_bytes)
      : pool_(std::move(pool)),
        connection_(std::move(connection)),
        cancel_(std::move(cancel)),
        head_request_(head_request),
        max_header_bytes_(max_header_bytes),
        parser_(std::in_place, max_header_bytes),
        chunks_(max_header_bytes) {}
  ~Exchange() override;

  /// Sends head and body as far as they fit now; they are left with the rest. As Connection::write().
  ssize_t write_now(std::string_view& head, std::string_view& body);
  /// Sends head and body. `unsent` tells that the connection failed before anything was handed to the system.
  Task<Status> write_request(std::string_view head, std::string_view body, bool& unsent);
  Task<Status> read_head();

  Task<Result<std::string>> read_some() override;
  Task<Result<std::string>> read_all(std::size_t max_bytes) override;
  std::optional<std::string> take_whole(std::size_t max_bytes) override;
  void set_deadline(SteadyTime deadline) override;
  /// What the system or TLS said about the failure, for the log.
  const std::string& failure() const noexcept { return failure_; }

 private:
  /// Reads once into the loop's buffer; `piece` views it and is valid until the next suspension. Nothing:
  /// there is nothing yet.
  std::optional<Status> receive(std::string_view& piece);
  /// Decodes body bytes into `out`. Gives the connection back at the end of the body.
  Status take_body(std::string_view bytes, std::string& out);
  Status take_pending(std::string& out);
  Status body_ended_by_close();
  /// Reads heads out of what has been received, past interim ones.
  Parse parse_heads();
  void finish();
  void drop() noexcept;
  Error fail(Error error);
  Error closed_error(std::string why);

  std::shared_ptr<HttpPool> pool_;
  std::shared_ptr<Connection> connection_;  // null once it went back or was closed
  std::shared_ptr<CancelSource::State> cancel_;
  const bool head_request_;
  const std::size_t max_header_bytes_;
  std::optional<HeadParser> parser_;
  Parse parsed_ = Parse::more;
  int interim_ = 0;
  ResponseHead head_;
  std::string pending_;  // received, not yet read by the owner: bytes of the head, then of the body
  std::uint64_t left_ = 0;
  ChunkDecoder chunks_;
  bool reusable_ = true;
  bool done_ = false;
  std::optional<Error> error_;  // the first one; it stays
  std::string failure_;
};

Error protocol_error();

}  // namespace mcpgw::detail
