// A client of revision 2026-07-28 for tests: stateless requests with their headers.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "json/raw.hpp"
#include "protocol/modern.hpp"
#include "runtime/http_client.hpp"
#include "support.hpp"

namespace mcpgw::testing {

using detail::raw::find;
using detail::raw::quote;

struct ModernOptions {
  std::string capabilities = "{}";
  std::string more_meta;  ///< further members, with a comma before
  HttpHeaders headers;    ///< besides the standard ones
  std::string id = "1";
};

inline std::string modern_params(const std::string& members, const ModernOptions& options = {}) {
  return "{" + members + (members.empty() ? "" : ",") +
         R"("_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",)" +
         R"("io.modelcontextprotocol/clientCapabilities":)" + options.capabilities + options.more_meta + "}}";
}

inline HttpHeaders modern_headers(const std::string& method, const std::string& params,
                                  const HttpHeaders& more = {}) {
  HttpHeaders out = detail::standard_headers(method, params);
  out.emplace_back("MCP-Protocol-Version", "2026-07-28");
  for (const auto& header : more) out.push_back(header);
  return out;
}

/// `members` are those of params besides _meta, without braces.
inline McpReply modern(McpClient& client, const std::string& method, const std::string& members = {},
                       const ModernOptions& options = {}) {
  const std::string params = modern_params(members, options);
  return client.raw(detail::make_request(options.id, method, params),
                    modern_headers(method, params, options.headers));
}

inline McpReply modern_call(McpClient& client, const std::string& name, const std::string& arguments = "{}",
                            const ModernOptions& options = {}, const std::string& more = {}) {
  return modern(client, "tools/call", R"("name":)" + quote(name) + R"(,"arguments":)" + arguments + more,
                options);
}

inline std::vector<std::string> listed(const McpReply& reply, const char* member, const char* key) {
  std::vector<std::string> out;
  const std::string result = reply.result();
  for (const std::string_view one : detail::raw::elements(find(result, member)))
    out.push_back(detail::raw::string_value(find(one, key)).value_or(""));
  return out;
}

/// Waits, within reason, until something is so.
template <class F>
bool eventually(F&& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

/// The answer to a request whose stream stays open.
class ModernStream final : public Responder, public std::enable_shared_from_this<ModernStream> {
 public:
  static std::shared_ptr<ModernStream> post(Gateway& gateway, const std::string& token, const std::string& body,
                                          const HttpHeaders& headers) {
    auto out = std::make_shared<ModernStream>();
    HttpRequest request;
    request.method = "POST";
    request.target = "/mcp";
    request.headers = {{"Authorization", "Bearer " + token},
                       {"Content-Type", "application/json"},
                       {"Accept", "application/json, text/event-stream"}};
    for (const auto& header : headers) request.headers.push_back(header);
    request.body = body;
    request.remote_address = "127.0.0.1";
    gateway.handle_async(std::move(request), out);
    return out;
  }

  void send(HttpResponse response) override {
    const std::lock_guard lock(mutex_);
    status_ = response.status;
    text_ = std::move(response.body);
    closed_ = true;
  }
  std::shared_ptr<ResponseStream> start(HttpResponse head) override {
    const std::lock_guard lock(mutex_);
    status_ = head.status;
    text_ = std::move(head.body);
    class Body final : public ResponseStream {
     public:
      explicit Body(std::shared_ptr<ModernStream> owner) : owner_(std::move(owner)) {}
      bool write(std::string data) override {
        const std::lock_guard lock(owner_->mutex_);
        if (owner_->closed_) return false;
        owner_->text_ += data;
        return true;
      }
      void close() override {
        const std::lock_guard lock(owner_->mutex_);
        owner_->closed_ = true;
      }

     private:
      const std::shared_ptr<ModernStream> owner_;
    };
    return std::make_shared<Body>(shared_from_this());
  }
  void on_disconnect(std::function<void()> callback) override {
    {
      const std::lock_guard lock(mutex_);
      if (!gone_) {
        on_disconnect_ = std::move(callback);
        return;
      }
    }
    if (callback) callback();
  }

  /// The client goes away.
  void leave() {
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex_);
      gone_ = closed_ = true;
      callback = std::move(on_disconnect_);
    }
    if (callback) callback();
  }
  int status() const {
    const std::lock_guard lock(mutex_);
    return status_;
  }
  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  std::string text() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }
  /// Messages so far, in order.
  std::vector<std::string> messages() const {
    detail::SseDecoder decoder(1024 * 1024);
    std::vector<detail::SseDecoder::Event> events;
    decoder.feed(text(), events);
    std::vector<std::string> out;
    for (auto& event : events)
      if (!event.data.empty()) out.push_back(std::move(event.data));
    return out;
  }

 private:
  mutable std::mutex mutex_;
  int status_ = 0;
  bool closed_ = false, gone_ = false;
  std::string text_;
  std::function<void()> on_disconnect_;
};

/// A tool that asks its client things (method and params each) in the middle of a call, one after the other
/// or all at once, and returns what it was told. Its upstream must outlive it.
inline void add_asking_tool(FakeUpstream& upstream, const std::string& name,
                            std::vector<std::pair<std::string, std::string>> questions,
                            bool at_once = false) {
  upstream.add_tool(
      name, [&upstream, name, questions = std::move(questions), at_once](const FakeUpstream::Call&) {
        static std::atomic<int> next{1};
        std::vector<std::string> ids;
        for (std::size_t i = 0; i < questions.size(); ++i) ids.push_back("q" + std::to_string(next++));
        const auto answer_to = [&upstream](const std::string& id) -> std::optional<std::string> {
          for (const std::string& message : upstream.received())
            if (find(message, "method").empty() && find(message, "id") == quote(id))
              return std::string(find(message, "result").empty() ? find(message, "error")
                                                                 : find(message, "result"));
          return std::nullopt;
        };
        std::string told;
        if (at_once)
          for (std::size_t i = 0; i < questions.size(); ++i)
            upstream.ask(ids[i], questions[i].first, questions[i].second);
        for (std::size_t i = 0; i < questions.size(); ++i) {
          if (!at_once) upstream.ask(ids[i], questions[i].first, questions[i].second);
          if (!eventually([&] { return answer_to(ids[i]).has_value(); }))
            return FakeUpstream::text("nobody answered");
          told += (told.empty() ? "" : "|") + *answer_to(ids[i]);
        }
        return FakeUpstream::text(told);
      });
}

}  // namespace mcpgw::testing
