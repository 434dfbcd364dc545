#include "runtime/http_client.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/moment.hpp"
#include "base/shared_apart.hpp"
#include "base/text.hpp"
#include "runtime/http_connect.hpp"
#include "runtime/http_exchange.hpp"
#include "runtime/poller.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kJoinBelow = 64 * 1024;

// Fields that belong to one connection or to framing: the client's own business.
bool is_own_field(std::string_view name) {
  switch (name.size()) {
    case 2:
      return iequals(name, "TE");
    case 4:
      return iequals(name, "Host");
    case 6:
      return iequals(name, "Expect");
    case 7:
      return iequals(name, "Trailer") || iequals(name, "Upgrade");
    case 10:
      return iequals(name, "Connection") || iequals(name, "Keep-Alive");
    case 14:
      return iequals(name, "Content-Length");
    case 16:
      return iequals(name, "Proxy-Connection");
    case 17:
      return iequals(name, "Transfer-Encoding");
    default:
      return false;
  }
}

Error invalid_request(const char* message) {
  return {ErrorCode::invalid_argument, "invalid_request", message};
}

bool is_target(std::string_view target) {
  return !target.empty() && target[0] == '/' &&
         std::all_of(target.begin(), target.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

/// Refuses what would let a value become lines of its own.
Status append_fields(std::string& head, const HttpHeaders& headers) {
  for (const auto& [name, value] : headers) {
    if (!is_token(name) || !is_field_value(value)) return invalid_request("A header field is malformed");
    if (is_own_field(name)) continue;
    head.append(name).append(": ").append(value).append("\r\n");
  }
  return {};
}

std::size_t size_of(const HttpHeaders& headers) noexcept {
  std::size_t size = 0;
  for (const auto& [name, value] : headers) size += name.size() + value.size() + 4;
  return size;
}

/// The request line, Host, and the fields, without the blank line; room for `more` behind them.
Result<std::string> make_lines(const std::string& method, const Url& url, const HttpHeaders& headers,
                               std::size_t more) {
  if (!is_token(method)) return invalid_request("The method is not a token");
  if (!is_target(url.target)) return invalid_request("The request target is malformed");
  if (url.host.empty() || url.host.find_first_of("/?#@[]\\ ") != std::string::npos || has_control(url.host) ||
      url.port < 1 || url.port > 65535)
    return invalid_request("The host is malformed");
  std::string head;
  head.reserve(method.size() + url.target.size() + url.host.size() + 32 + size_of(headers) + more);
  head.append(method).append(" ").append(url.target).append(" HTTP/1.1\r\nHost: ");
  head.append(url.authority()).append("\r\n");
  if (auto appended = append_fields(head, headers); !appended) return appended.error();
  return head;
}

Result<std::string> make_head(const ClientRequest& request) {
  constexpr std::size_t kLengthLine = 40;  // and the blank one
  std::string head;
  const std::string* method = &request.method;
  if (request.base != nullptr) {
    method = &request.base->method();
    const std::string& text = request.base->text();
    head.reserve(text.size() + size_of(request.headers) + kLengthLine);
    head = text;
    if (auto appended = append_fields(head, request.headers); !appended) return appended.error();
  } else {
    auto lines = make_lines(request.method, request.url, request.headers, kLengthLine);
    if (!lines) return lines.error();
    head = std::move(*lines);
  }
  if (!request.body.empty() || *method == "POST" || *method == "PUT" || *method == "PATCH") {
    std::array<char, 24> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), request.body.size()).ptr;
    head.append("Content-Length: ").append(digits.data(), end).append("\r\n");
  }
  head.append("\r\n");
  return head;
}

/// What requests need of their client. It holds no Runtime: requests run on its loops, which end with it.
struct Core {
  HttpClientOptions options;
  std::shared_ptr<TlsContext> tls;
  std::optional<Proxy> proxy;
  WorkerPool* resolvers = nullptr;
  struct PerLoop {
    std::shared_ptr<HttpPool> pool;
    std::shared_ptr<TlsSessionCache> sessions;
  };
  std::vector<PerLoop> loops;
};

using Sent = Result<std::unique_ptr<HttpExchange>>;

Task<Sent> send_on(std::shared_ptr<Core> core, std::size_t loop_index, ClientRequest request,
                   std::shared_ptr<CancelSource::State> cancel, std::string* detail) {
  Result<std::string> head = make_head(request);
  if (!head) co_return head.error();
  const Url& url = request.base != nullptr ? request.base->url() : request.url;
  std::string_view body = request.body;
  if (url.tls() && body.size() <= kJoinBelow) {
    head->append(body);  // one TLS record, one system call
    body = {};
  }
  const bool head_only = (request.base != nullptr ? request.base->method() : request.method) == "HEAD";
  const Core::PerLoop& here = core->loops[loop_index];

  for (bool fresh = false;; fresh = true) {
    std::shared_ptr<Connection> connection = fresh ? nullptr : here.pool->take(url);
    const bool reused = connection != nullptr;
    if (!reused) {
      connection = std::make_shared<Connection>(here.pool->loop(), Origin{url.host, url.port, url.tls()});
    }
    connection->begin_use();
    auto exchange =
        std::make_unique<Exchange>(here.pool, connection, cancel, head_only, core->options.max_header_bytes);
    if (cancel && !cancel->attach(connection)) co_return cancelled_error();
    if (request.deadline <= steady_now()) co_return timeout_error();

    if (!reused) {
      const ConnectContext context{core->options, *core->tls, here.sessions, *core->resolvers,
                                   core->proxy ? &*core->proxy : nullptr};
      Status connected = co_await connect(connection, context, request.deadline, detail);
      if (!connected) co_return connected.error();
    }
    connection->set_deadline(request.deadline);
    if (Poller* poller = Poller::stepping()) co_await poller->next_step();

    bool unsent = false;
    Status done;
    std::string_view head_left = *head, body_left = body;
    (void)exchange->write_now(head_left, body_left);  // what fails is told by whoever goes on
    if (!head_left.empty() || !body_left.empty())
      done = co_await exchange->write_request(head_left, body_left, unsent);
    // The peer had closed and the system took not one byte: nothing can have been executed.
    if (!done && unsent && reused) continue;
    if (done) done = co_await exchange->read_head();
    if (Poller* poller = Poller::stepping()) co_await poller->next_step();
    if (done) co_return Sent(std::move(exchange));
    if (detail != nullptr) {
      *detail = url.host + ":" + std::to_string(url.port) + ": " + done.error().message;
      if (!exchange->failure().empty()) *detail += " (" + exchange->failure() + ")";
    }
    co_return done.error();
  }
}

class Client final : public HttpClient {
 public:
  Client(std::shared_ptr<Runtime> runtime, std::shared_ptr<Core> core)
      : runtime_(std::move(runtime)), core_(std::move(core)), cores_(core_) {}

  ~Client() override {
    // Each pool is closed, and released, on its own loop.
    for (Core::PerLoop& each : core_->loops) {
      Loop& loop = each.pool->loop();
      loop.post([pool = each.pool] { pool->close(); });
    }
  }

  Task<Sent> send(ClientRequest request, CancelSource* cancel, std::string* detail) override {
    Loop* const loop = Loop::current();
    if (loop == nullptr || !runtime_->impl().owns(loop)) return wrong_loop();
    return send_on(cores_.here(), loop->index(), std::move(request),
                   cancel != nullptr ? cancel->state() : nullptr, detail);
  }

  void close_idle() override {
    for (Core::PerLoop& each : core_->loops)
      each.pool->loop().post([pool = each.pool] { pool->close_idle(); });
  }

 private:
  static Task<Sent> wrong_loop() {
    co_return Error(ErrorCode::internal, "wrong_loop",
                    "A request must be sent on a loop of its client's runtime");
  }

  const std::shared_ptr<Runtime> runtime_;
  const std::shared_ptr<Core> core_;
  const HeldApart<Core> cores_;  ///< the same
};

}  // namespace

Result<RequestBase> RequestBase::create(std::string method, Url url, HttpHeaders headers) {
  auto lines = make_lines(method, url, headers, 0);
  if (!lines) return lines.error();
  RequestBase out;
  out.method_ = std::move(method);
  out.url_ = std::move(url);
  out.headers_ = std::move(headers);
  out.text_ = std::move(*lines);
  return out;
}

Result<std::shared_ptr<HttpClient>> HttpClient::create(std::shared_ptr<Runtime> runtime,
                                                       HttpClientOptions options) {
  auto tls = TlsContext::create(options);
  if (!tls) return tls.error();
  auto core = std::make_shared<Core>();
  core->tls = std::move(*tls);
  if (!options.proxy.empty()) {
    auto proxy = Proxy::parse(options.proxy, options.no_proxy);
    if (!proxy) return proxy.error();
    core->proxy = std::move(*proxy);
  }
  core->options = std::move(options);
  core->resolvers = &runtime->impl().workers();
  for (std::size_t i = 0; i < runtime->impl().loop_count(); ++i) {
    core->loops.push_back(
        {std::make_shared<HttpPool>(runtime->impl().loop(i), core->options.max_idle_per_loop,
                                    core->options.idle_timeout),
         std::make_shared<TlsSessionCache>()});
  }
  return std::shared_ptr<HttpClient>(std::make_shared<Client>(std::move(runtime), std::move(core)));
}

}  // namespace mcpgw::detail
