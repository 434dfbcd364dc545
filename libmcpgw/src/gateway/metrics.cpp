#include "gateway/metrics.hpp"

#include "gateway/session.hpp"
#include "gateway/statistics.hpp"
#include "mcpgw/version.hpp"

namespace mcpgw::detail {
namespace {

std::string escape(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

void gauge(std::string& out, const char* name, const char* help, std::uint64_t value) {
  out += std::string("# HELP ") + name + ' ' + help + "\n# TYPE " + name + " gauge\n" + name + ' ' +
         std::to_string(value) + '\n';
}

}  // namespace

std::string render_metrics(const GatewayCore& core) {
  std::string out;
  out += "# HELP mcpgw_build_info The running build.\n# TYPE mcpgw_build_info gauge\n";
  out +=
      std::string("mcpgw_build_info{version=\"") + version() + "\",commit=\"" + escape(commit()) + "\"} 1\n";
  gauge(out, "mcpgw_requests_in_flight", "Requests that are being answered.", core.in_flight.load());
  gauge(out, "mcpgw_sessions_active", "Live sessions of clients.", core.sessions->count());
  gauge(out, "mcpgw_audit_queue_depth", "Audit rows that wait to be written.", core.audit->depth());
  out += "# HELP mcpgw_streams_active Open streams of clients.\n# TYPE mcpgw_streams_active gauge\n";
  out += "mcpgw_streams_active{kind=\"sse\"} " + std::to_string(core.sessions->streams()) + '\n';
  out += "# HELP mcpgw_audit_written_total Audit rows written.\n# TYPE mcpgw_audit_written_total counter\n";
  out += "mcpgw_audit_written_total " + std::to_string(core.audit->written()) + '\n';
  out +=
      "# HELP mcpgw_upstream_up Whether the last contact with the target succeeded.\n# TYPE "
      "mcpgw_upstream_up gauge\n";
  for (const auto& target : core.repository->targets()) {
    const TargetStatus status = core.pool->status(*target);
    out += "mcpgw_upstream_up{target=\"" + escape(target->name) + "\"} " +
           (status.state == "up" ? "1" : "0") + '\n';
  }
  return out;
}

}  // namespace mcpgw::detail
