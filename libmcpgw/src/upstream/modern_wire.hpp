// How requests travel to a server of MCP 2026-07-28 and what it sends comes back: as HTTP requests of their
// own, or as lines of one pipe (MCP 2026-07-28, basic/transports).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "protocol/message.hpp"
#include "upstream/upstream.hpp"

namespace mcpgw::detail {

struct WireRequest {
  std::string id;  ///< raw JSON
  std::string method;
  std::string params;   ///< raw object
  HttpHeaders headers;  ///< besides those of the binding; where there are any
  SteadyTime deadline = SteadyTime::max();
  /// Whose doing what comes without a request's name on it is. Null: nobody's.
  const void* client = nullptr;
  /// Told the log lines about the request. May be null.
  std::shared_ptr<CallObserver> observer;
  /// Notifications that belong to the request, in order, before its answer, from any thread; one may come
  /// while the request is being given up. Returns the deadline from then on; nullopt leaves it.
  std::function<std::optional<SteadyTime>(const Envelope&)> on_notification;
  /// Ends it: the server is told as the binding says. Never null, and for one exchange alone.
  std::shared_ptr<CallHandle> handle;
};

/// Safe from any thread; exchange() is awaited on a loop.
class ModernWire {
 public:
  virtual ~ModernWire() = default;
  virtual std::string_view transport() const = 0;
  /// Begins to listen, where there is a standing channel. Once, before the first exchange.
  virtual void start() {}
  /// One request and its answer. Errors as of Upstream::request. `status` is the HTTP status of what came, 0
  /// when nothing came or there are none.
  virtual Task<Result<UpstreamAnswer>> exchange(WireRequest request, int* status = nullptr) = 0;
  virtual void close() = 0;
};

std::shared_ptr<ModernWire> make_http_wire(HttpUpstreamOptions options,
                                           std::function<void(LogLevel, std::string)> on_log);

/// `on_lost` is called once, when the other side is gone, which may be from within start().
std::shared_ptr<ModernWire> make_channel_wire(std::shared_ptr<MessageChannel> channel,
                                              std::function<void(Error)> on_lost,
                                              std::function<void(LogLevel, std::string)> on_log);

}  // namespace mcpgw::detail
