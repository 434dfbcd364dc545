// Requests to a server of MCP 2026-07-28 over Streamable HTTP: each is a POST whose answer is one JSON
// message or an event stream, and closing that stream cancels it.
#include "json/raw.hpp"
#include "protocol/modern.hpp"
#include "upstream/modern_wire.hpp"
#include "upstream/rpc_support.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kJsonDepth = 256;

class HttpWire final : public ModernWire {
 public:
  HttpWire(HttpUpstreamOptions options, std::function<void(LogLevel, std::string)> on_log)
      : options_(std::move(options)), on_log_(std::move(on_log)) {}

  std::string_view transport() const override { return "streamable-http"; }
  void close() override {}  // there is nothing but the exchanges, whose owner ends them

  Task<Result<UpstreamAnswer>> exchange(WireRequest request, int* status) override {
    const auto cancel = std::make_shared<CancelSource>();
    request.handle->on_cancel([cancel](const std::string&) { cancel->cancel(); });
    auto answer = co_await perform(request, *cancel, status);
    request.handle->on_cancel(nullptr);
    co_return answer;
  }

 private:
  ClientRequest message_of(const WireRequest& request) const {
    ClientRequest out;
    out.method = "POST";
    out.url = options_.url;
    out.headers = options_.headers;
    out.headers.emplace_back("Content-Type", "application/json");
    out.headers.emplace_back("Accept", "application/json, text/event-stream");
    out.headers.emplace_back("MCP-Protocol-Version", std::string(kModernVersion));
    for (auto& header : standard_headers(request.method, request.params))
      out.headers.push_back(std::move(header));
    for (const auto& header : request.headers)
      if (find_header(out.headers, header.first) == nullptr) out.headers.push_back(header);
    out.body = make_request(request.id, request.method, request.params);
    out.deadline = request.deadline;
    return out;
  }

  Task<Result<UpstreamAnswer>> perform(WireRequest& request, CancelSource& cancel, int* status) {
    std::string detail;
    auto sent = co_await options_.client->send(message_of(request), &cancel, &detail);
    if (!sent) {
      if (!detail.empty()) log(request, LogLevel::warn, detail);
      co_return sent.error();
    }
    std::unique_ptr<HttpExchange> exchange = std::move(*sent);
    if (status != nullptr) *status = exchange->status;
    if (exchange->status >= 300 && exchange->status < 400)
      co_return Error(ErrorCode::unavailable, "upstream_redirect", "The server answered with a redirect");
    if (exchange->status == 200 && is_media_type(exchange->headers, "text/event-stream"))
      co_return co_await read_stream(request, std::move(exchange));
    auto body = co_await exchange->read_all(options_.max_message);
    if (!body) co_return body.error();
    if (is_media_type(exchange->headers, "application/json") &&
        raw::check(*body, kJsonDepth) == raw::Fault::none) {
      if (auto answer = answer_to(*body, request.id); answer && (answer->is_error || exchange->status == 200))
        co_return std::move(*answer);
    }
    if (exchange->status != 200) co_return http_status_error(exchange->status);
    co_return protocol_error("The server's answer is no answer to the request");
  }

  Task<Result<UpstreamAnswer>> read_stream(WireRequest& request, std::unique_ptr<HttpExchange> exchange) {
    SseDecoder decoder(options_.max_message);
    std::vector<SseDecoder::Event> events;
    for (;;) {
      auto piece = co_await exchange->read_some();
      if (!piece) co_return piece.error();
      if (piece->empty()) co_return closed_error("The server ended the answer early");
      events.clear();
      if (!decoder.feed(*piece, events))
        co_return Error(ErrorCode::resource_exhausted, "response_too_large",
                        "An event exceeds the size limit");
      for (const SseDecoder::Event& event : events) {
        if (event.data.empty() || event.event != "message") continue;
        if (raw::check(event.data, kJsonDepth) != raw::Fault::none) {
          log(request, LogLevel::warn, "an event that is not JSON was skipped");
          continue;
        }
        if (auto answer = answer_to(event.data, request.id)) co_return std::move(*answer);
        auto read = read_envelope(event.data);
        const auto* message = std::get_if<Envelope>(&read);
        if (message == nullptr || message->kind != Envelope::Kind::notification) {
          log(request, LogLevel::warn, "an event that is no notification was skipped");
        } else if (request.on_notification) {
          if (const auto deadline = request.on_notification(*message)) exchange->set_deadline(*deadline);
        }
      }
    }
  }

  void log(const WireRequest& request, LogLevel level, std::string text) const {
    if (request.observer && request.observer->on_log(level, text)) return;
    if (on_log_) on_log_(level, std::move(text));
  }

  const HttpUpstreamOptions options_;
  const std::function<void(LogLevel, std::string)> on_log_;
};

}  // namespace

std::shared_ptr<ModernWire> make_http_wire(HttpUpstreamOptions options,
                                           std::function<void(LogLevel, std::string)> on_log) {
  return std::make_shared<HttpWire>(std::move(options), std::move(on_log));
}

}  // namespace mcpgw::detail
