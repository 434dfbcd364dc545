#include "gateway/metrics.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

template <std::size_t N>
std::size_t index_of(const std::string_view (&names)[N], std::string_view name) {
  std::size_t i = 0;
  while (i + 1 < N && names[i] != name) ++i;
  return i;
}

std::size_t code_index(int status, std::string_view code) {
  if (code.empty() || (status < 400 && code != "tool_error"))
    return status < 400 ? 0 : std::size(kMetricCodes) - 1;
  return index_of(kMetricCodes, code);
}

constexpr std::string_view kHttpMethods[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "other"};

/// What of a client was limited, by where it was told.
std::string_view limited(std::string_view route, std::string_view method) {
  if (route == "/api/auth/login") return "login";
  if (route == "/api/auth/register") return "register";
  if (route == "/api/auth/password") return "password";
  if (route == "/api/observability/ticket") return "ticket";
  if (route == "/api/observability/ws" || ((route == "/mcp" || route == "/sse") && method == "GET"))
    return "stream";
  if (route == "/mcp") return "session";
  return "other";
}

constexpr std::string_view kAuthReasons[] = {"unauthorized",   "invalid_token",       "token_expired",
                                             "token_revoked",  "invalid_credentials", "insufficient_scope",
                                             "admin_required", "origin_not_allowed",  "other"};

/// A condition that does not hold and a value out of bounds are answers, not faults.
bool is_fault(const Error& error) {
  return error.code != ErrorCode::conflict && error.code != ErrorCode::invalid_argument &&
         error.code != ErrorCode::not_found;
}

template <class F>
auto measure(Metrics& metrics, Metrics::Op op, F call) {
  const auto started = std::chrono::steady_clock::now();
  auto result = call();
  metrics.storage(op, result || !is_fault(result.error()),
                  std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now() - started));
  return result;
}

class MeteredStorage final : public Storage {
 public:
  MeteredStorage(std::shared_ptr<Storage> inner, std::shared_ptr<Metrics> metrics)
      : inner_(std::move(inner)), metrics_(std::move(metrics)) {}

  Result<std::optional<Record>> get(std::string_view collection, std::string_view key) override {
    return measure(*metrics_, Metrics::Op::get, [&] { return inner_->get(collection, key); });
  }
  Result<std::vector<Record>> list(std::string_view collection, std::string_view prefix,
                                   std::string_view after, std::size_t limit) override {
    return measure(*metrics_, Metrics::Op::list,
                   [&] { return inner_->list(collection, prefix, after, limit); });
  }
  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) override {
    return measure(*metrics_, Metrics::Op::commit, [&] { return inner_->commit(operations); });
  }
  std::uint64_t watch(WatchCallback callback) override { return inner_->watch(std::move(callback)); }
  void unwatch(std::uint64_t id) override { inner_->unwatch(id); }
  Status ping() override {
    return measure(*metrics_, Metrics::Op::ping, [&] { return inner_->ping(); });
  }
  bool shared() const override { return inner_->shared(); }
  bool durable() const override { return inner_->durable(); }

 private:
  const std::shared_ptr<Storage> inner_;
  const std::shared_ptr<Metrics> metrics_;
};

class MeteredAuditSink final : public AuditSink {
 public:
  MeteredAuditSink(std::shared_ptr<AuditSink> inner, std::shared_ptr<Metrics> metrics)
      : inner_(std::move(inner)), metrics_(std::move(metrics)) {}

  Status append(const std::vector<AuditRecord>& batch) override {
    return measure(*metrics_, Metrics::Op::audit_append, [&] { return inner_->append(batch); });
  }
  Result<AuditPage> query(const AuditQuery& query) override {
    return measure(*metrics_, Metrics::Op::audit_query, [&] { return inner_->query(query); });
  }
  Result<std::uint64_t> purge(Time cutoff) override {
    return measure(*metrics_, Metrics::Op::audit_purge, [&] { return inner_->purge(cutoff); });
  }

 private:
  const std::shared_ptr<AuditSink> inner_;
  const std::shared_ptr<Metrics> metrics_;
};

}  // namespace

TargetSeries::~TargetSeries() {
  for (auto& method : methods) delete method.load(std::memory_order_relaxed);
}

MethodSeries& TargetSeries::method(std::string_view name) {
  auto& place = methods[index_of(kMetricMethods, name)];
  if (auto* found = place.load(std::memory_order_acquire)) return *found;
  auto made = std::make_unique<MethodSeries>();
  MethodSeries* expected = nullptr;
  if (place.compare_exchange_strong(expected, made.get(), std::memory_order_acq_rel)) return *made.release();
  return *expected;
}

MethodSeries::Reading MethodSeries::read() const {
  Reading out;
  parts_.each([&](const Part& part) {
    for (std::size_t i = 0; i < out.answers.size(); ++i) out.answers[i] += part.answers[i].read();
    out.duration.add(part.duration.read());
    out.sent_ok += part.sent_ok.read();
    out.sent_failed += part.sent_failed.read();
    out.upstream.add(part.upstream.read());
  });
  return out;
}

ToolSeries::Reading ToolSeries::read() const {
  Reading out;
  parts_.each([&](const Part& part) {
    for (std::size_t i = 0; i < out.outcomes.size(); ++i) out.outcomes[i] += part.outcomes[i].read();
    out.duration.add(part.duration.read());
  });
  return out;
}

std::shared_ptr<ToolSeries> Metrics::tool(TargetSeries& target, std::string_view name) {
  if (auto found = target.tools.find(name)) return found;
  if (tool_count_.fetch_add(1, std::memory_order_relaxed) < max_tools_) return target.tools.get(name);
  tool_count_.fetch_sub(1, std::memory_order_relaxed);
  return target.tools.get("other");
}

void Metrics::request(const AuditRecord& row, Duration took) {
  const auto series = targets_.get(row.target_name.empty() ? std::string_view("_gateway") : row.target_name);
  series->method(row.method).answered(code_index(row.response_status, row.error_code), took);
}

void Metrics::decision(bool allowed, ResourceType type) {
  const std::size_t kind = type == ResourceType::tool ? 0 : type == ResourceType::resource ? 1 : 2;
  decisions_.mine()[allowed ? 1 : 0][kind].add();
}

void Metrics::HttpSeries::answered(std::string_view method, int status, Duration took) {
  Part& part = parts_.mine();
  part.duration.observe(took);
  const auto key = static_cast<std::uint32_t>(index_of(kHttpMethods, method) * 1000 +
                                              static_cast<std::size_t>(std::clamp(status, 1, 999)));
  for (std::size_t i = 0; i < kPlaces; ++i) {
    auto& place = part.keys[(key + i) % kPlaces];
    std::uint32_t there = place.load(std::memory_order_acquire);
    if (there == 0 && place.compare_exchange_strong(there, key, std::memory_order_acq_rel)) there = key;
    if (there == key) return part.counts[(key + i) % kPlaces].add();
  }
}

Histogram::Reading Metrics::HttpSeries::duration() const {
  Histogram::Reading out;
  parts_.each([&](const Part& part) { out.add(part.duration.read()); });
  return out;
}

std::map<std::pair<std::string_view, int>, std::uint64_t> Metrics::HttpSeries::answers() const {
  std::map<std::pair<std::string_view, int>, std::uint64_t> out;
  parts_.each([&](const Part& part) {
    for (std::size_t i = 0; i < kPlaces; ++i)
      if (const std::uint32_t key = part.keys[i].load(std::memory_order_acquire); key != 0)
        out[{kHttpMethods[key / 1000], static_cast<int>(key % 1000)}] += part.counts[i].read();
  });
  return out;
}

void Metrics::http(std::string_view route, std::string_view method, int status, std::string_view code,
                   Duration took) {
  const auto series = http_.get(route);
  series->answered(method, status, took);
  if (status == 401 || status == 403) auth_failures_.get(kAuthReasons[index_of(kAuthReasons, code)])->add();
  if (status == 429) rate_limited_.get(limited(route, method))->add();
}

void Metrics::storage(Op op, bool ok, Duration took) {
  StorageSeries& series = storage_[static_cast<std::size_t>(op)];
  series.duration.observe(took);
  if (!ok) series.errors.add();
}

std::shared_ptr<Storage> metered(std::shared_ptr<Storage> storage, std::shared_ptr<Metrics> metrics) {
  return std::make_shared<MeteredStorage>(std::move(storage), std::move(metrics));
}

std::shared_ptr<AuditSink> metered(std::shared_ptr<AuditSink> sink, std::shared_ptr<Metrics> metrics) {
  return std::make_shared<MeteredAuditSink>(std::move(sink), std::move(metrics));
}

}  // namespace mcpgw::detail
