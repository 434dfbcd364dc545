#include "observability/tracer.hpp"

#include <algorithm>
#include <cmath>

#include "base/id_random.hpp"
#include "base/text.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr std::size_t kMaxQueued = 8192;
constexpr std::size_t kBatch = 256;
constexpr auto kEvery = milliseconds(1000);
constexpr auto kPatience = seconds(10);  // with one answer
constexpr auto kFirstWait = milliseconds(1000);
constexpr auto kMaxWait = milliseconds(30000);
constexpr int kTries = 5;
constexpr std::size_t kMaxAnswer = 64 * 1024;

Error bad(const char* field, const char* what) {
  return {ErrorCode::invalid_argument, "invalid_option", what, field};
}

bool passes(int status) { return status == 429 || status == 502 || status == 503 || status == 504; }

}  // namespace

Result<std::shared_ptr<Tracer>> Tracer::create(std::shared_ptr<Runtime> runtime,
                                               const TelemetryOptions& options, std::shared_ptr<Random> ids,
                                               LogSink log) {
  auto url = parse_url(options.endpoint);
  if (!url) return bad("telemetry.endpoint", "The collector's address must be an http or https URL");
  constexpr std::string_view kPath = "/v1/traces";
  if (!std::string_view(url->target).ends_with(kPath)) {
    while (url->target.ends_with('/')) url->target.pop_back();
    url->target += kPath;
  }
  if (!(options.sampling >= 0 && options.sampling <= 1))
    return bad("telemetry.sampling", "The part of traces that is recorded is between 0 and 1");
  HttpClientOptions http;
  http.allow_private = http.allow_metadata = true;  // whoever configures the gateway names it
  http.ca_file = options.ca;
  auto client = HttpClient::create(runtime, http);
  if (!client) return bad("telemetry.ca", "The collector's certificate authorities cannot be read");
  std::shared_ptr<Tracer> out(
      new Tracer(options, std::move(*url), std::move(*client), std::move(ids), std::move(log)));
  Loop& loop = runtime->impl().any_loop();
  loop.post([&loop, out] { loop.spawn(run(out)); });
  return out;
}

Tracer::Tracer(const TelemetryOptions& options, Url url, std::shared_ptr<HttpClient> client,
               std::shared_ptr<Random> ids, LogSink log)
    : service_name_(options.service_name),
      instance_id_(make_uuid(*ids)),
      sampled_below_(options.sampling >= 1 ? UINT64_MAX
                                           : static_cast<std::uint64_t>(std::ldexp(options.sampling, 64))),
      url_(std::move(url)),
      client_(std::move(client)),
      ids_(std::move(ids)),
      log_(std::move(log)),
      wake_(std::make_shared<AsyncEvent>()) {}

std::string Tracer::new_trace_id() const {
  std::string bytes(16, '\0');
  do ids_->fill(bytes.data(), bytes.size());
  while (bytes.find_first_not_of('\0') == std::string::npos);
  return to_hex(bytes);
}

std::string Tracer::new_span_id() const {
  std::string bytes(8, '\0');
  do ids_->fill(bytes.data(), bytes.size());
  while (bytes.find_first_not_of('\0') == std::string::npos);
  return to_hex(bytes);
}

bool Tracer::samples(std::string_view trace_id) const noexcept {
  // By the id, so that whoever samples by the same rule decides alike.
  std::uint64_t number = 0;
  for (const char c : trace_id.substr(trace_id.size() - 16))
    number = number << 4 | static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10);
  return sampled_below_ == UINT64_MAX || number < sampled_below_;
}

void Tracer::record(Span span) {
  std::shared_ptr<AsyncEvent> wake;
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() >= kMaxQueued || over_) {
      dropped_.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    queue_.push_back(std::move(span));
    if (queue_.size() == kBatch) wake = wake_;
  }
  if (wake) wake->set();
}

Task<void> Tracer::run(std::shared_ptr<Tracer> self) { co_await self->work(); }

Task<void> Tracer::work() {
  for (;;) {
    std::vector<Span> batch;
    bool stopping;
    std::shared_ptr<AsyncEvent> wake;
    {
      const std::lock_guard lock(mutex_);
      const std::size_t count = std::min(queue_.size(), kBatch);
      batch.assign(std::make_move_iterator(queue_.begin()),
                   std::make_move_iterator(queue_.begin() + static_cast<std::ptrdiff_t>(count)));
      queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(count));
      stopping = stopping_;
      if (batch.empty() && stopping) {
        over_ = true;
        ended_.notify_all();
        co_return;
      }
      wake = wake_ = std::make_shared<AsyncEvent>();
      if (queue_.size() >= kBatch || stopping) wake->set();
    }
    if (!batch.empty()) co_await deliver(std::move(batch));
    (void)co_await wake->wait(steady_clock::now() + kEvery);
  }
}

Task<void> Tracer::deliver(std::vector<Span> batch) {
  const std::string body = otlp_json(batch, service_name_, instance_id_);
  const std::size_t count = batch.size();
  batch = {};
  milliseconds wait = kFirstWait;
  for (int attempt = 1;; ++attempt) {
    std::string why;
    milliseconds asked{0};
    const Outcome outcome = co_await post(body, asked, why);
    if (outcome == Outcome::taken) {
      exported_.fetch_add(count, std::memory_order_relaxed);
      report(true, {});
      co_return;
    }
    std::shared_ptr<AsyncEvent> wake;
    {
      const std::lock_guard lock(mutex_);
      if (outcome == Outcome::refused || attempt == kTries || stopping_) break;
      wake = wake_ = std::make_shared<AsyncEvent>();
    }
    report(false, why);
    const auto until = steady_clock::now() + std::clamp(asked, wait, kMaxWait);
    wait = std::min<milliseconds>(wait * 2, kMaxWait);
    // A full batch wakes too: only the end is a reason not to wait.
    for (;;) {
      if (!co_await wake->wait(until)) break;
      const std::lock_guard lock(mutex_);
      if (stopping_) break;
      wake = wake_ = std::make_shared<AsyncEvent>();
    }
  }
  drop(count, "the collector did not take them");
}

Task<Tracer::Outcome> Tracer::post(const std::string& body, milliseconds& wait, std::string& why) {
  ClientRequest request;
  request.method = "POST";
  request.url = url_;
  request.headers = {{"Content-Type", "application/json"}, {"User-Agent", "mcpgw"}};
  request.body = body;
  request.deadline = steady_clock::now() + kPatience;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) request.deadline = steady_clock::now() + seconds(2);
  }
  auto exchange = co_await client_->send(std::move(request), nullptr, &why);
  if (!exchange) {
    if (why.empty()) why = exchange.error().reason;
    co_return Outcome::try_again;
  }
  const int status = (*exchange)->status;
  if (const std::string* after = find_header((*exchange)->headers, "Retry-After"))
    if (const auto number = raw::int_value(*after); number && *number > 0)
      wait = std::min<milliseconds>(seconds(std::min<std::int64_t>(*number, 60)), kMaxWait);
  (void)co_await (*exchange)->read_all(kMaxAnswer);
  if (status >= 200 && status < 300) co_return Outcome::taken;
  why = "status " + std::to_string(status);
  co_return passes(status) ? Outcome::try_again : Outcome::refused;
}

void Tracer::drop(std::size_t count, const std::string& why) {
  dropped_.fetch_add(count, std::memory_order_relaxed);
  report(false, why);
}

void Tracer::report(bool works, const std::string& why) {
  if (failing_ == !works || !log_) return;
  failing_ = !works;
  if (works)
    log_({LogLevel::info, "telemetry", "spans are exported again", {}});
  else
    log_({LogLevel::warn,
          "telemetry",
          "spans cannot be exported; they are dropped when there are too many",
          {{"cause", why}}});
}

void Tracer::stop(milliseconds patience) {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  const auto wake = wake_;
  lock.unlock();
  wake->set();
  lock.lock();
  ended_.wait_for(lock, patience, [this] { return over_; });
  over_ = true;
  dropped_.fetch_add(queue_.size(), std::memory_order_relaxed);
  queue_.clear();
}

}  // namespace mcpgw::detail
