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
class MethodSeries {
 public:
  void answered(std::size_t code, Duration took) {
    Part& part = parts_.mine();
    part.answers[code].add();
    part.duration.observe(took);
  }
  void sent(bool ok, Duration took) {
    Part& part = parts_.mine();
    (ok ? part.sent_ok : part.sent_failed).add();
    part.upstream.observe(took);
  }

  struct Reading {
    std::array<std::uint64_t, std::size(kMetricCodes)> answers{};
    Histogram::Reading duration;
    std::uint64_t sent_ok = 0, sent_failed = 0;
    Histogram::Reading upstream;
  };
  Reading read() const;

 private:
  struct Part {
    std::array<Counter, std::size(kMetricCodes)> answers;
    Histogram duration;
    Counter sent_ok, sent_failed;
    Histogram upstream;
  };
  PerThread<Part> parts_;
};

class ToolSeries {
 public:
  enum class Outcome { ok, failed, denied };
  void called(Outcome outcome, Duration took) {
    Part& part = parts_.mine();
    part.outcomes[static_cast<std::size_t>(outcome)].add();
    part.duration.observe(took);
  }

  struct Reading {
    std::array<std::uint64_t, 3> outcomes{};  ///< by Outcome
    Histogram::Reading duration;
  };
  Reading read() const;

 private:
  struct Part {
    std::array<Counter, 3> outcomes;
    Histogram duration;
  };
  PerThread<Part> parts_;
};

struct TargetSeries {
  TargetSeries() = default;
  ~TargetSeries();
  /// Made with its first use.
  MethodSeries& method(std::string_view name);
  /// A request to the target has been answered, or not.
  void sent(std::string_view name, bool ok, Duration took) { method(name).sent(ok, took); }
  const MethodSeries* method(std::size_t index) const {
    return methods[index].load(std::memory_order_acquire);
  }

  std::array<std::atomic<MethodSeries*>, std::size(kMetricMethods)> methods{};
  Named<ToolSeries> tools{SIZE_MAX};
  Counter credential_failures, restarts;
  Gauge in_flight;
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
    return found ? found->in_flight.read() : 0;
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
  /// Of one route: answers by method and status.
  class HttpSeries {
   public:
    void answered(std::string_view method, int status, Duration took);
    Histogram::Reading duration() const;
    /// In order of methods and statuses.
    std::map<std::pair<std::string_view, int>, std::uint64_t> answers() const;

   private:
    /// Far more than a route has.
    static constexpr std::size_t kPlaces = 128;
    struct Part {
      Histogram duration;
      std::array<std::atomic<std::uint32_t>, kPlaces> keys{};  ///< 0: free
      std::array<Counter, kPlaces> counts;
    };
    PerThread<Part> parts_;
  };
  using Decisions = std::array<std::array<Counter, 3>, 2>;  ///< allowed, type
  struct StorageSeries {
    Histogram duration;
    Counter errors;
  };

  void put_requests(MetricsText& text) const;
  void put_decisions(MetricsText& text) const;
  void put_reflow_names(MetricsText& text, const GatewayCore& core) const;

  const std::size_t max_tools_;
  std::atomic<std::size_t> tool_count_{0};
  Named<TargetSeries> targets_{10000};
  PerThread<Decisions> decisions_;
  Named<HttpSeries> http_{1000};
  Named<Counter> auth_failures_{50};
  Named<Counter> rate_limited_{50};
  std::array<StorageSeries, 7> storage_;
};

/// `storage` and `sink` with every call counted in `metrics`.
std::shared_ptr<Storage> metered(std::shared_ptr<Storage> storage, std::shared_ptr<Metrics> metrics);
std::shared_ptr<AuditSink> metered(std::shared_ptr<AuditSink> sink, std::shared_ptr<Metrics> metrics);

}  // namespace mcpgw::detail
