// Tracer: spans on their way to a collector, by OTLP over HTTP in JSON. Whoever records one never waits:
// spans are sent in batches by a coroutine, and when the collector is away or slow they are counted and
// dropped.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/gateway.hpp"
#include "observability/trace.hpp"
#include "runtime/http_client.hpp"
#include "runtime/waiter.hpp"

namespace mcpgw::detail {

/// Safe from any thread.
class Tracer : public std::enable_shared_from_this<Tracer> {
 public:
  /// invalid_argument with field "telemetry.endpoint", "telemetry.ca" or "telemetry.sampling".
  static Result<std::shared_ptr<Tracer>> create(std::shared_ptr<Runtime> runtime,
                                                const TelemetryOptions& options, std::shared_ptr<Random> ids,
                                                LogSink log);

  std::string new_trace_id() const;
  std::string new_span_id() const;
  /// Whether a trace that begins here is recorded.
  bool samples(std::string_view trace_id) const noexcept;
  void record(Span span);

  /// Sends what is queued, once, and ends. Blocks for at most `patience`; not from a loop.
  void stop(std::chrono::milliseconds patience);

  std::uint64_t exported() const noexcept { return exported_.load(std::memory_order_relaxed); }
  std::uint64_t dropped() const noexcept { return dropped_.load(std::memory_order_relaxed); }

 private:
  Tracer(const TelemetryOptions& options, Url url, std::shared_ptr<HttpClient> client,
         std::shared_ptr<Random> ids, LogSink log);
  static Task<void> run(std::shared_ptr<Tracer> self);
  Task<void> work();
  /// Until it is delivered or given up.
  Task<void> deliver(std::vector<Span> batch);
  enum class Outcome { taken, refused, try_again };
  Task<Outcome> post(const std::string& body, std::chrono::milliseconds& wait, std::string& why);
  void drop(std::size_t count, const std::string& why);
  void report(bool works, const std::string& why);

  const std::string service_name_;
  const std::string instance_id_;
  const std::uint64_t sampled_below_;
  const Url url_;
  const std::shared_ptr<HttpClient> client_;
  const std::shared_ptr<Random> ids_;
  const LogSink log_;
  std::atomic<std::uint64_t> exported_{0};
  std::atomic<std::uint64_t> dropped_{0};
  bool failing_ = false;  ///< of the coroutine alone

  std::mutex mutex_;  // guards what follows
  std::condition_variable ended_;
  std::deque<Span> queue_;
  std::shared_ptr<AsyncEvent> wake_;
  bool stopping_ = false;
  bool over_ = false;
};

/// The body of an export request.
std::string otlp_json(const std::vector<Span>& spans, std::string_view service_name,
                      std::string_view instance_id);

}  // namespace mcpgw::detail
