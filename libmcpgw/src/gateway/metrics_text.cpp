// What /metrics answers.
#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>

#include "gateway/key_rotation_worker.hpp"
#include "gateway/metrics.hpp"
#include "gateway/modern_client.hpp"
#include "gateway/session.hpp"
#include "mcpgw/version.hpp"
#include "observability/activity_hub.hpp"
#include "observability/tracer.hpp"
#include "storage/model_text.hpp"

namespace mcpgw::detail {
namespace {

using Type = MetricsText::Type;

std::string_view status_of(std::size_t code) {
  const std::string_view name = kMetricCodes[code];
  return name == "ok" || name == "tool_error" ? "ok" : name == "denied" ? "denied" : "error";
}

constexpr std::string_view kTypes[] = {"tool", "resource", "prompt"};
constexpr std::string_view kDecisions[] = {"deny", "allow"};
constexpr std::string_view kOutcomes[] = {"ok", "error", "denied"};  // by ToolSeries::Outcome
constexpr std::string_view kOps[] = {"get",          "list",        "commit",     "ping",
                                     "audit_append", "audit_query", "audit_purge"};

/// Of this process, from /proc: what client libraries of Prometheus tell of theirs.
void put_process(MetricsText& text) {
  std::ifstream file("/proc/self/stat");
  const std::string stat((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto end = stat.rfind(')');  // the program's name may hold anything
  long long user = 0, system = 0, threads = 0, start = 0, pages = 0;
  unsigned long long size = 0;
  if (end != std::string::npos &&
      std::sscanf(
          stat.c_str() + end + 1,
          " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lld %lld %*d %*d %*d %*d %lld %*d %lld %llu %lld",
          &user, &system, &threads, &start, &size, &pages) == 6) {
    const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
    text.family("process_cpu_seconds_total", Type::counter, "CPU time of the process in seconds.");
    text.value({}, static_cast<double>(user + system) / ticks);
    text.family("process_resident_memory_bytes", Type::gauge, "Resident memory in bytes.");
    text.value({}, static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
    text.family("process_virtual_memory_bytes", Type::gauge, "Virtual memory in bytes.");
    text.value({}, static_cast<std::uint64_t>(size));
    text.family("process_threads", Type::gauge, "Threads.");
    text.value({}, static_cast<std::uint64_t>(threads));
    std::ifstream system_stat("/proc/stat");
    std::string line;
    unsigned long long boot = 0;
    while (std::getline(system_stat, line))
      if (std::sscanf(line.c_str(), "btime %llu", &boot) == 1) break;
    if (boot != 0) {
      text.family("process_start_time_seconds", Type::gauge, "Start of the process in seconds since 1970.");
      text.value({}, static_cast<double>(boot) + static_cast<double>(start) / ticks);
    }
  }
  std::uint64_t open = 0;
  if (DIR* directory = ::opendir("/proc/self/fd"); directory != nullptr) {
    while (::readdir(directory) != nullptr) ++open;
    ::closedir(directory);
    text.family("process_open_fds", Type::gauge, "Open file descriptors.");
    text.value({}, open > 3 ? open - 3 : 0);  // without ".", ".." and the directory itself
  }
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    text.family("process_max_fds", Type::gauge, "Most file descriptors that may be open.");
    text.value({}, static_cast<std::uint64_t>(limit.rlim_cur));
  }
}

/// What each method of each target has counted: read once, told in several families.
struct MethodFigures {
  std::string target;
  std::string_view method;
  MethodSeries::Reading figures;
};

std::vector<MethodFigures> read_methods(const std::map<std::string, std::shared_ptr<TargetSeries>>& targets) {
  std::vector<MethodFigures> out;
  for (const auto& [name, target] : targets)
    for (std::size_t i = 0; i < std::size(kMetricMethods); ++i)
      if (const MethodSeries* method = target->method(i))
        out.push_back({name, kMetricMethods[i], method->read()});
  return out;
}

}  // namespace

void Metrics::put_requests(MetricsText& text) const {
  const auto targets = targets_.all();
  const auto methods = read_methods(targets);
  text.family("mcpgw_requests_total", Type::counter, "JSON-RPC requests of clients.");
  for (const auto& [target, method, series] : methods) {
    for (std::size_t code = 0; code < std::size(kMetricCodes); ++code)
      if (const auto count = series.answers[code]; count > 0)
        text.value({{"method", method},
                    {"target", target},
                    {"status", status_of(code)},
                    {"code", kMetricCodes[code]}},
                   count);
  }
  text.family("mcpgw_request_duration_seconds", Type::histogram, "Time to answer a JSON-RPC request.");
  for (const auto& [target, method, series] : methods) {
    if (const auto& reading = series.duration; reading.count > 0)
      text.histogram({{"method", method}, {"target", target}}, reading);
  }
  text.family("mcpgw_tool_calls_total", Type::counter, "Calls of tools that the target lists.");
  for (const auto& [name, target] : targets)
    for (const auto& [tool, series] : target->tools.all()) {
      const auto counts = series->read().outcomes;
      for (std::size_t i = 0; i < counts.size(); ++i)
        if (counts[i] > 0)
          text.value({{"target", name}, {"tool", tool}, {"status", kOutcomes[i]}}, counts[i]);
    }
  text.family("mcpgw_upstream_requests_total", Type::counter, "Calls and lists that were sent to targets.");
  for (const auto& [target, method, series] : methods) {
    for (const auto& [status, count] :
         {std::pair("ok", series.sent_ok), std::pair("error", series.sent_failed)})
      if (count > 0) text.value({{"target", target}, {"method", method}, {"status", status}}, count);
  }
  text.family("mcpgw_upstream_request_duration_seconds", Type::histogram, "Time a target takes to answer.");
  for (const auto& [target, method, series] : methods) {
    if (const auto& reading = series.upstream; reading.count > 0)
      text.histogram({{"target", target}, {"method", method}}, reading);
  }
  text.family("mcpgw_credential_failures_total", Type::counter, "Calls whose credential could not be had.");
  for (const auto& [name, target] : targets)
    if (const auto count = target->credential_failures.read(); count > 0)
      text.value({{"target", name}}, count);
  text.family("mcpgw_instance_restarts_total", Type::counter, "Instances that died or were restarted.");
  for (const auto& [name, target] : targets)
    if (const auto count = target->restarts.read(); count > 0) text.value({{"target", name}}, count);
}

void Metrics::put_decisions(MetricsText& text) const {
  for (std::size_t allowed = 0; allowed < 2; ++allowed)
    for (std::size_t type = 0; type < 3; ++type) {
      std::uint64_t count = 0;
      decisions_.each([&](const Decisions& part) { count += part[allowed][type].read(); });
      text.value({{"decision", kDecisions[allowed]}, {"resource_type", kTypes[type]}}, count);
    }
}

void Metrics::put_reflow_names(MetricsText& text, const GatewayCore& core) const {
  const auto targets = targets_.all();
  const auto methods = read_methods(targets);
  text.family("mcp_requests_total", Type::counter, "As mcpgw_requests_total, by the name of Reflow Gateway.");
  for (const auto& [target, method, series] : methods) {
    std::map<std::string_view, std::uint64_t> by_status;
    for (std::size_t code = 0; code < std::size(kMetricCodes); ++code)
      if (const auto count = series.answers[code]; count > 0)
        by_status[status_of(code) == "ok" ? "success" : "error"] += count;
    for (const auto& [status, count] : by_status)
      text.value({{"method", method}, {"status", status}, {"target", target}}, count);
  }
  text.family("mcp_request_duration", Type::histogram, "Time to answer a request in milliseconds.");
  for (const auto& [target, method, series] : methods) {
    if (const auto& reading = series.duration; reading.count > 0)
      text.histogram({{"method", method}, {"target", target}}, reading, true);
  }
  text.family("mcp_tool_calls_total", Type::counter, "Calls of tools.");
  for (const auto& [name, target] : targets)
    for (const auto& [tool, series] : target->tools.all()) {
      const auto counts = series->read().outcomes;
      text.value({{"tool_name", tool}, {"target", name}}, counts[0] + counts[1] + counts[2]);
    }
  text.family("mcp_tool_call_duration", Type::histogram, "Time of a tool's call in milliseconds.");
  for (const auto& [name, target] : targets)
    for (const auto& [tool, series] : target->tools.all())
      text.histogram({{"tool_name", tool}, {"target", name}}, series->read().duration, true);
  text.family("mcp_authz_decisions_total", Type::counter, "Decisions on items.");
  put_decisions(text);
  text.family("mcp_sessions_active", Type::gauge, "Live sessions of clients.");
  text.value({}, static_cast<std::uint64_t>(core.sessions->count()));
  text.family("mcp_upstream_requests_total", Type::counter, "Requests sent to targets.");
  for (const auto& [target, method, series] : methods) {
    for (const auto& [status, count] :
         {std::pair("success", series.sent_ok), std::pair("error", series.sent_failed)})
      if (count > 0) text.value({{"method", method}, {"status", status}, {"target", target}}, count);
  }
  text.family("mcp_upstream_request_duration", Type::histogram, "Time a target takes in milliseconds.");
  for (const auto& [target, method, series] : methods) {
    if (const auto& reading = series.upstream; reading.count > 0)
      text.histogram({{"method", method}, {"target", target}}, reading, true);
  }
}

std::string Metrics::render(const GatewayCore& core, std::string_view accept, std::string& content_type) {
  const auto targets = core.repository->targets();
  targets_.keep([&](const std::string& name) {
    if (name == "_gateway") return true;
    for (const auto& target : targets)
      if (target->name == name) return true;
    return false;
  });
  std::size_t tools = 0;
  for (const auto& [name, target] : targets_.all()) tools += target->tools.size();
  tool_count_.store(tools, std::memory_order_relaxed);

  MetricsText text(prefers_openmetrics(accept));
  content_type = text.content_type();
  const auto gauge = [&](std::string_view name, std::string_view help, std::uint64_t value) {
    text.family(name, Type::gauge, help);
    text.value({}, value);
  };
  const auto counter = [&](std::string_view name, std::string_view help, std::uint64_t value) {
    text.family(name, Type::counter, help);
    text.value({}, value);
  };
  text.family("mcpgw_build_info", Type::gauge, "The running build.");
  text.value({{"version", version()}, {"commit", commit()}}, std::uint64_t{1});
  put_requests(text);
  gauge("mcpgw_requests_in_flight", "HTTP requests that are being answered.", core.in_flight.load());
  text.family("mcpgw_authz_decisions_total", Type::counter,
              "Decisions on items that were asked for by name.");
  put_decisions(text);
  gauge("mcpgw_sessions_active", "Live sessions of clients.", core.sessions->count());
  text.family("mcpgw_streams_active", Type::gauge, "Open streams of clients.");
  text.value({{"kind", "sse"}}, static_cast<std::uint64_t>(core.sessions->streams()));
  text.value({{"kind", "listen"}}, static_cast<std::uint64_t>(core.modern->streams()));
  text.value({{"kind", "websocket"}}, static_cast<std::uint64_t>(core.dashboards->count()));
  std::vector<TargetStatus> states;
  for (const auto& target : targets) states.push_back(core.pool->status(*target));
  text.family("mcpgw_upstream_up", Type::gauge, "Whether the last contact with the target succeeded.");
  for (std::size_t i = 0; i < targets.size(); ++i)
    if (targets[i]->enabled)
      text.value({{"target", targets[i]->name}},
                 std::uint64_t{states[i].state == "up" ||
                               (states[i].state == "degraded" && states[i].instances > 0)});
  text.family("mcpgw_instances", Type::gauge, "Open connections to targets, and processes.");
  for (std::size_t i = 0; i < targets.size(); ++i)
    text.value(
        {{"target", targets[i]->name}, {"kind", to_text(targets[i]->transport_type)}, {"state", "running"}},
        static_cast<std::uint64_t>(states[i].instances));

  const auto http = http_.all();
  text.family("mcpgw_http_requests_total", Type::counter, "HTTP requests by route.");
  for (const auto& [route, series] : http)
    for (const auto& [answer, count] : series->answers())
      text.value({{"route", route}, {"method", answer.first}, {"code", std::to_string(answer.second)}},
                 count);
  text.family("mcpgw_http_request_duration_seconds", Type::histogram,
              "Time to the answer's head of an HTTP request.");
  for (const auto& [route, series] : http) text.histogram({{"route", route}}, series->duration());
  text.family("mcpgw_auth_failures_total", Type::counter, "Requests refused for who sent them.");
  for (const auto& [reason, count] : auth_failures_.all()) text.value({{"reason", reason}}, count->read());
  text.family("mcpgw_rate_limited_total", Type::counter, "Requests refused for coming too often.");
  for (const auto& [what, count] : rate_limited_.all()) text.value({{"what", what}}, count->read());
  gauge("mcpgw_audit_queue_depth", "Audit rows that wait to be written.", core.audit->depth());
  counter("mcpgw_audit_written_total", "Audit rows written.", core.audit->written());
  gauge("mcpgw_audit_failing", "Whether audit rows cannot be stored at present.",
        core.audit->failing() ? 1 : 0);
  text.family("mcpgw_storage_duration_seconds", Type::histogram, "Time of a storage operation.");
  for (std::size_t op = 0; op < storage_.size(); ++op)
    if (const auto reading = storage_[op].duration.read(); reading.count > 0)
      text.histogram({{"op", kOps[op]}}, reading);
  text.family("mcpgw_storage_errors_total", Type::counter, "Storage operations that failed.");
  for (std::size_t op = 0; op < storage_.size(); ++op)
    text.value({{"op", kOps[op]}}, storage_[op].errors.read());
  counter("mcpgw_dashboard_events_dropped_total", "Events that open dashboards were not told.",
          core.dashboards->dropped());
  gauge("mcpgw_key_rotation_running", "Whether stored secrets are being sealed with a new key.",
        core.key_rotation->running() ? 1 : 0);
  gauge("mcpgw_key_rotation_values_left", "Stored secrets that are yet to be sealed with the new key.",
        core.key_rotation->left());
  gauge("mcpgw_key_rotation_values_unreadable", "Stored secrets that no key opened in the last rotation.",
        core.key_rotation->unreadable());
  if (core.tracer) {
    text.family("mcpgw_spans_total", Type::counter, "Spans of traces by what became of them.");
    text.value({{"result", "exported"}}, core.tracer->exported());
    text.value({{"result", "dropped"}}, core.tracer->dropped());
  }
  if (core.options.metrics_reflow_names) put_reflow_names(text, core);
  put_process(text);
  return text.finish();
}

}  // namespace mcpgw::detail
