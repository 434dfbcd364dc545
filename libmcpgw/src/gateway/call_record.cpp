#include "gateway/call_record.hpp"

namespace mcpgw::detail {

CallRecord::CallRecord(ClientCall& call, const Target& target, ResourceType type, const std::string& item)
    : call_(call),
      target_(target.name),
      type_(type),
      series_(kObserved ? call.core->metrics->target(target.name) : nullptr),
      tool_(kObserved && type == ResourceType::tool ? call.core->metrics->tool(*series_, item) : nullptr),
      running_(kObserved ? call.core->statistics->begin(call.principal.user_id, target.name)
                         : Statistics::InFlight()),
      started_(call.core->clock->monotonic()) {
  if (!kObserved) return;
  series_->in_flight.add(1);
  if (traced()) {
    call_.trace->attribute("mcpgw.target", target_);
    if (tool_ != nullptr) call_.trace->attribute("gen_ai.tool.name", item.substr(0, 256));
  }
  begin("authorize", Span::Kind::internal);
}

CallRecord::~CallRecord() {
  if (!kObserved) return;
  const AuditRecord& row = call_.audit;
  if (sending_) answered(false);
  end(row.response_status < 400 || row.response_status == 499);
  series_->in_flight.add(-1);
  if (row.error_code == "credential_unavailable") series_->credential_failures.add();
  if (tool_ == nullptr) return;
  using Outcome = ToolSeries::Outcome;
  const Outcome outcome = row.error_code == "denied"                                     ? Outcome::denied
                          : row.response_status >= 400 || row.error_code == "tool_error" ? Outcome::failed
                                                                                         : Outcome::ok;
  tool_->called(outcome, (answered_ > Duration(0) ? answered_ : call_.core->clock->monotonic()) - started_);
}

void CallRecord::begin(const char* step, Span::Kind kind) {
  if (!traced()) return;
  end(true);
  step_ = call_.trace->child(step, kind, call_.core->clock->now());
  step_.attributes.push_back({"mcpgw.target", target_, std::nullopt});
}

void CallRecord::end(bool ok) {
  if (step_.span_id.empty()) return;
  step_.ended = call_.core->clock->now();
  step_.failed = !ok;
  if (!ok && !call_.audit.error_code.empty())
    step_.attributes.push_back({"error.type", call_.audit.error_code, std::nullopt});
  call_.trace->finish(std::exchange(step_, Span()));
}

void CallRecord::judged(bool allowed) {
  if (!kObserved) return;
  call_.core->metrics->decision(allowed, type_);
  if (!step_.span_id.empty())
    step_.attributes.push_back({"mcpgw.decision", allowed ? "allow" : "deny", std::nullopt});
}

void CallRecord::connecting() { begin("credential", Span::Kind::internal); }

void CallRecord::sending(UpstreamCall& request) {
  begin(call_.method.c_str(), Span::Kind::client);
  if (!step_.span_id.empty()) step_.attributes.push_back({"mcp.method.name", call_.method, std::nullopt});
  sent_ = call_.core->clock->monotonic();
  sending_ = true;
  if (call_.trace != nullptr) call_.trace->append_headers(request.headers, &step_);
}

void CallRecord::answered(bool ok) {
  sending_ = false;
  if (!kObserved) return;
  answered_ = call_.core->clock->monotonic();
  series_->sent(call_.method, ok, answered_ - sent_);
  end(ok);
}

}  // namespace mcpgw::detail
