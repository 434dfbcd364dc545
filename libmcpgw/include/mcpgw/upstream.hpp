// Upstream connections as an embedder sees them: a pipe of JSON-RPC messages to one MCP server. The gateway
// opens HTTP and stdio upstreams itself; a host that keeps MCP servers in process (or a test) supplies its own
// channel through GatewayOptions::connect_upstream.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "mcpgw/model.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw {

/// A bidirectional pipe of whole JSON-RPC messages (UTF-8 JSON texts).
///
/// Threads: send() and close() may be called from any thread and must not block. The receiver's functions may
/// be called from any thread, one at a time, never from inside send().
class MessageChannel {
 public:
  struct Receiver {
    std::function<void(std::string message)> on_message;
    /// Called once, after the last message, when the other side is gone. Not called after close().
    std::function<void(Error reason)> on_closed;
    /// A message over the channel's size bound was dropped: its first and last bytes, which tell whose answer it was.
    /// A channel without such a bound never calls it.
    std::function<void(std::string head, std::string tail)> on_dropped;
  };

  virtual ~MessageChannel() = default;
  /// Called once, before the first send(). Messages that arrive earlier are kept.
  virtual void start(Receiver receiver) = 0;
  /// unavailable when the channel is closed; resource_exhausted when the other side does not read.
  virtual Status send(std::string message) = 0;
  /// After return no further receiver call begins.
  virtual void close() = 0;
};

/// What a connection is opened with.
struct UpstreamParameters {
  Target target;
  std::string principal_user_id;           ///< empty for shared instances
  std::map<std::string, std::string> env;  ///< resolved values: secret
  std::string credential;                  ///< secret; empty = none
};

/// Null result: not one of mine, use the built-in transport. Called on a worker thread; may block.
using ConnectUpstream = std::function<Result<std::shared_ptr<MessageChannel>>(const UpstreamParameters&)>;

}  // namespace mcpgw
