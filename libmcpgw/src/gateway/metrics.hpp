// The figures of /metrics. Label sets are bounded: names come from configuration and from the lists of
// servers, never from clients.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <string_view>

#include "gateway/core.hpp"
#include "mcpgw/model.hpp"
#include "observability/meters.hpp"

namespace mcpgw::detail {

/// Methods of MCP that have a label of their own, and "other", the last.
inline constexpr std::string_view kMetricMethods[] = {"initialize",
                                                      "ping",
                                                      "tools/list",
                                                      "tools/call",
                                                      "prompts/list",
                                                      "prompts/get",
                                                      "resources/list",
                                                      "resources/templates/list",
                                                      "resources/read",
                                                      "resources/subscribe",
                                                      "resources/unsubscribe",
                                                      "completion/complete",
                                                      "logging/setLevel",
                                                      "server/discover",
                                                      "subscriptions/listen",
                                                      "sampling/createMessage",
                                                      "elicitation/create",
                                                      "roots/list",
                                                      "tasks/get",
                                                      "tasks/result",
                                                      "tasks/list",
                                                      "tasks/cancel",
                                                      "other"};
/// The codes of audit rows (docs/operations.md), after "ok"; "other" is the last.
inline constexpr std::string_view kMetricCodes[] = {"ok",
                                                    "tool_error",
                                                    "denied",
                                                    "unknown_item",
                                                    "invalid_request",
                                                    "invalid_params",
                                                    "unknown_method",
                                                    "session_not_found",
                                                    "upstream_error",
                                                    "upstream_unreachable",
                                                    "upstream_closed",
                                                    "upstream_protocol_error",
                                                    "upstream_redirect",
                                                    "response_too_large",
                                                    "upstream_timeout",
                                                    "cancelled",
                                                    "credential_unavailable",
                                                    "target_busy",
                                                    "instance_limit",
                                                    "transport_disabled",
                                                    "kubernetes_disabled",
                                                    "rate_limited",
                                                    "storage_unavailable",
                                                    "other"};

/// One method of one target.
struct MethodSeries {
  std::array<Counter, std::size(kMetricCodes)> answers;
  Histogram duration;
  Counter sent_ok, sent_failed;
  Histogram upstream;
};

struct ToolSeries {
  Counter ok, failed, denied;
  Histogram duration;
};

struct TargetSeries {
  TargetSeries() = default;
  ~TargetSeries();
  /// Made with its first use.
  MethodSeries& method(std::string_view name);
  /// A request to the target has been answered, or not.
  void sent(std::string_view name, bool ok, Duration took) {
    MethodSeries& series = method(name);
    (ok ? series.sent_ok : series.sent_failed).add();
    series.upstream.observe(took);
  }
  const MethodSeries* method(std::size_t index) const {
    return methods[index].load(std::memory_order_acquire);
  }

  std::array<std::atomic<MethodSeries*>, std::size(kMetricMethods)> methods{};
  Named<ToolSeries> tools{SIZE_MAX};
  Counter credential_failures, restarts;
  std::atomic<std::int64_t> in_flight{0};
};

/// Safe from any thread.
class Metrics {
 public:
  enum class Op { get, list, commit, ping, audit_append, audit_query, audit_purge };

  explicit Metrics(std::size_t max_tools) : max_tools_(max_tools) {}

  /// `name` is a configured one, or "_gateway".
  std::shared_ptr<TargetSeries> target(std::string_view name) { return targets_.get(name); }
  /// `name` is one that the target's own list has.
  std::shared_ptr<ToolSeries> tool(TargetSeries& target, std::string_view name);

  /// Calls of the target's items that are running.
  std::int64_t in_flight(std::string_view name) const {
    const auto found = targets_.find(name);
    return found ? found->in_flight.load(std::memory_order_relaxed) : 0;
  }

  void request(const AuditRecord& row, Duration took);
  void decision(bool allowed, ResourceType type);
  /// `route` is a template, `code` that of an error, empty when it is none or unknown.
  void http(std::string_view route, std::string_view method, int status, std::string_view code,
            Duration took);
  void storage(Op op, bool ok, Duration took);

  /// In the format that `accept` prefers; tells which in `content_type`. Series of targets that are gone end.
  std::string render(const GatewayCore& core, std::string_view accept, std::string& content_type);

 private:
  struct HttpSeries {
    Histogram duration;
    Named<Counter> answers{1000};  ///< "GET 200"
  };
  struct StorageSeries {
    Histogram duration;
    Counter errors;
  };

  void put_requests(MetricsText& text) const;
  void put_reflow_names(MetricsText& text, const GatewayCore& core) const;

  const std::size_t max_tools_;
  std::atomic<std::size_t> tool_count_{0};
  Named<TargetSeries> targets_{10000};
  std::array<std::array<Counter, 3>, 2> decisions_;  // allowed, type
  Named<HttpSeries> http_{1000};
  Named<Counter> auth_failures_{50};
  Named<Counter> rate_limited_{50};
  std::array<StorageSeries, 7> storage_;
};

/// `storage` and `sink` with every call counted in `metrics`.
std::shared_ptr<Storage> metered(std::shared_ptr<Storage> storage, std::shared_ptr<Metrics> metrics);
std::shared_ptr<AuditSink> metered(std::shared_ptr<AuditSink> sink, std::shared_ptr<Metrics> metrics);

}  // namespace mcpgw::detail
