// An MCP server over HTTP that a test writes: each request goes to the test's script first, then to plain
// answers. It remembers what it received.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <optional>

#include "json/raw.hpp"
#include "scripted_server.hpp"

namespace mcpgw::testing {

/// Waits until `done`, for at most twenty seconds.
inline bool wait_until(const std::function<bool()>& done) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!done()) {
    if (std::chrono::steady_clock::now() > limit) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

/// One request, and the way to answer it.
class McpExchange {
 public:
  McpExchange(Peer& peer, std::string text) : at(std::chrono::steady_clock::now()), peer_(peer) {
    const auto end = text.find("\r\n\r\n");
    body = text.substr(end + 4);
    const std::string head = text.substr(0, end);
    http_method = head.substr(0, head.find(' '));
    target =
        head.substr(http_method.size() + 1, head.find(' ', http_method.size() + 1) - http_method.size() - 1);
    for (std::size_t line = head.find("\r\n"); line != std::string::npos;) {
      const auto next = head.find("\r\n", line + 2);
      const std::string text_line = head.substr(line + 2, next == std::string::npos ? next : next - line - 2);
      const auto colon = text_line.find(':');
      std::string name = text_line.substr(0, colon);
      std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
      headers[name] = colon + 2 <= text_line.size() ? text_line.substr(colon + 2) : std::string();
      line = next;
    }
    method = detail::raw::string_value(detail::raw::find(body, "method")).value_or("");
    id = detail::raw::find(body, "id");
  }

  std::string http_method, target, body;
  std::map<std::string, std::string> headers;  // names in lower case
  std::string method;                          // of the message
  std::string id;                              // raw JSON
  std::chrono::steady_clock::time_point at;

  std::string header(const std::string& name) const {
    const auto it = headers.find(name);
    return it == headers.end() ? std::string() : it->second;
  }
  std::string param(const char* name) const {
    return std::string(detail::raw::find(detail::raw::find(body, "params"), name));
  }
  std::string text_param(const char* name) const {
    return detail::raw::string_value(detail::raw::find(detail::raw::find(body, "params"), name)).value_or("");
  }

  void status(int code, const std::string& text = {}, const std::string& more_headers = {}) {
    peer_.send("HTTP/1.1 " + std::to_string(code) + " x\r\nContent-Length: " + std::to_string(text.size()) +
               "\r\nContent-Type: application/json\r\n" + more_headers + "\r\n" + text);
  }
  void result(const std::string& json, const std::string& more_headers = {}) {
    status(200, R"({"jsonrpc":"2.0","id":)" + id + R"(,"result":)" + json + "}", more_headers);
  }
  void error(int code, const std::string& message) {
    status(200, R"({"jsonrpc":"2.0","id":)" + id + R"(,"error":{"code":)" + std::to_string(code) +
                    R"(,"message":")" + message + "\"}}");
  }

  /// An event stream, in chunks.
  void stream() {
    peer_.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
  }
  bool bytes(const std::string& text) {
    char size[20];
    std::snprintf(size, sizeof size, "%zx\r\n", text.size());
    return peer_.send(size + text + "\r\n");
  }
  bool event(const std::string& data, const std::string& event_id = {}, const std::string& name = {}) {
    return bytes((event_id.empty() ? "" : "id: " + event_id + "\n") +
                 (name.empty() ? "" : "event: " + name + "\n") + "data: " + data + "\n\n");
  }
  /// A result on the stream.
  bool stream_result(const std::string& json, const std::string& event_id = {}) {
    return event(R"({"jsonrpc":"2.0","id":)" + id + R"(,"result":)" + json + "}", event_id);
  }
  void end_stream() { peer_.send("0\r\n\r\n"); }
  /// The connection breaks.
  void cut() { peer_.close(); }
  /// Until the client closes the connection.
  bool wait_closed() { return peer_.wait_closed(); }

 private:
  Peer& peer_;
};

/// What a scripted server was sent.
class McpRecord {
 public:
  std::vector<McpExchange> received() const {
    const std::lock_guard lock(mutex_);
    return received_;
  }
  /// Messages of this method.
  std::vector<McpExchange> received(const std::string& method) const {
    std::vector<McpExchange> out;
    for (McpExchange& one : received())
      if (one.method == method) out.push_back(std::move(one));
    return out;
  }

 protected:
  void record(const McpExchange& exchange) {
    const std::lock_guard lock(mutex_);
    received_.push_back(exchange);
  }

 private:
  mutable std::mutex mutex_;  // protects what follows
  std::vector<McpExchange> received_;
};

class ScriptedMcp : public McpRecord {
 public:
  /// True when the script has answered. Runs in threads of the server.
  using Script = std::function<bool(McpExchange&)>;
  explicit ScriptedMcp(Script script = nullptr, int on_port = 0)
      : script_(std::move(script)), server_([this](Peer& peer, int) { serve(peer); }, on_port) {}

  int port() const { return server_.port(); }
  std::string url(const std::string& path = "/mcp") const { return server_.url(path); }

  // What the plain answers say; set before the first request.
  std::string version;  ///< empty: the client's
  std::string capabilities = R"({"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}})";
  std::string tools = R"([{"name":"echo","inputSchema":{"type":"object"}}])";

  /// HTTP requests of this method.
  std::vector<McpExchange> requests(const std::string& http_method) const {
    std::vector<McpExchange> out;
    for (McpExchange& one : received())
      if (one.http_method == http_method) out.push_back(std::move(one));
    return out;
  }

 private:
  void serve(Peer& peer) {
    for (;;) {
      std::string text = peer.read_request();
      if (text.empty()) return;
      McpExchange exchange(peer, std::move(text));
      record(exchange);
      if (script_ && script_(exchange)) continue;
      plain(exchange);
    }
  }

  void plain(McpExchange& exchange) {
    if (exchange.http_method == "GET") return exchange.status(405);
    if (exchange.http_method == "DELETE") return exchange.status(200);
    if (exchange.id.empty()) return exchange.status(202);
    if (exchange.method == "initialize")
      return exchange.result(
          R"({"protocolVersion":)" +
              (version.empty() ? exchange.param("protocolVersion") : "\"" + version + "\"") +
              R"(,"capabilities":)" + capabilities + R"(,"serverInfo":{"name":"scripted","version":"1"}})",
          "Mcp-Session-Id: session-" + std::to_string(++sessions_) + "\r\n");
    if (exchange.method == "tools/list") return exchange.result(R"({"tools":)" + tools + "}");
    if (exchange.method == "resources/list") return exchange.result(R"({"resources":[]})");
    if (exchange.method == "resources/templates/list") return exchange.result(R"({"resourceTemplates":[]})");
    if (exchange.method == "prompts/list") return exchange.result(R"({"prompts":[]})");
    if (exchange.method == "tools/call")
      return exchange.result(R"({"content":[{"type":"text","text":)" + exchange.param("name") + "}]}");
    for (const char* known : {"ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
      if (exchange.method == known) return exchange.result("{}");
    exchange.error(-32601, "Method not found");
  }

  const Script script_;
  std::atomic<int> sessions_{0};
  ScriptedServer server_;  // last: its threads use the others
};

/// The same over HTTP+SSE: GET opens the stream, POSTs are answered 202 and their answers come on the stream.
class ScriptedSse : public McpRecord {
 public:
  /// What is written to the stream for a message: nullopt for the plain answer, "" for none.
  using Script = std::function<std::optional<std::string>(McpExchange& post)>;
  explicit ScriptedSse(Script script = nullptr, int on_port = 0)
      : script_(std::move(script)), server_([this](Peer& peer, int) { serve(peer); }, on_port) {}
  ~ScriptedSse() { stopping_ = true; }

  std::string url(const std::string& path = "/sse") const { return server_.url(path); }
  int port() const { return server_.port(); }

  std::function<std::string(int stream)> endpoint = [](int stream) {
    return "/messages?session=" + std::to_string(stream);
  };
  std::function<bool(McpExchange&)> on_request;  ///< before anything else; true: answered

  /// Writes an event to the newest stream.
  void say(const std::string& message) {
    const std::lock_guard lock(mutex_);
    pending_.push_back(message);
  }
  /// Ends the newest stream.
  void hang_up() { ++hang_ups_; }
  int streams() const { return streams_; }

 private:
  void serve(Peer& peer) {
    for (;;) {
      std::string text = peer.read_request();
      if (text.empty()) return;
      McpExchange exchange(peer, std::move(text));
      record(exchange);
      if (on_request && on_request(exchange)) continue;
      if (exchange.http_method == "GET") return stream(exchange);
      if (exchange.target.find("/messages") != 0) {
        exchange.status(405);
        continue;
      }
      exchange.status(202);
      if (auto answer = script_ ? script_(exchange) : std::nullopt) {
        if (!answer->empty()) say(*answer);
      } else if (!exchange.id.empty() && !exchange.method.empty()) {
        say(R"({"jsonrpc":"2.0","id":)" + exchange.id + R"(,"result":)" + plain(exchange) + "}");
      }
    }
  }

  void stream(McpExchange& exchange) {
    const int number = ++streams_;
    const int hang_up_at = hang_ups_ + 1;
    exchange.stream();
    exchange.event(endpoint(number), {}, "endpoint");
    while (!stopping_ && streams_ == number && hang_ups_ < hang_up_at) {
      std::vector<std::string> events;
      {
        const std::lock_guard lock(mutex_);
        events.swap(pending_);
      }
      for (const std::string& one : events)
        if (!exchange.event(one, {}, "message")) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    exchange.end_stream();
    exchange.cut();
  }

  static std::string plain(const McpExchange& exchange) {
    if (exchange.method == "initialize")
      return R"({"protocolVersion":"2024-11-05","capabilities":{"tools":{},"logging":{}},)"
             R"("serverInfo":{"name":"old","version":"1"}})";
    if (exchange.method == "tools/list")
      return R"({"tools":[{"name":"echo","inputSchema":{"type":"object"}}]})";
    if (exchange.method == "tools/call")
      return R"({"content":[{"type":"text","text":)" + exchange.param("name") + "}]}";
    return "{}";
  }

  const Script script_;
  std::atomic<int> streams_{0}, hang_ups_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;  // protects what follows
  std::vector<std::string> pending_;
  ScriptedServer server_;  // last: its threads use the others
};

}  // namespace mcpgw::testing
