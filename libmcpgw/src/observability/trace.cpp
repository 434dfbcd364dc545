#include "observability/trace.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "json/raw.hpp"
#include "observability/tracer.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxState = 512;
constexpr std::size_t kMaxBaggage = 8192;

bool is_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_zero(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

bool printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

/// All headers of that name as one list; empty when that is too long or no header could say it.
std::string joined(const HttpHeaders& headers, std::string_view name, std::size_t max) {
  std::string out;
  for (const auto& [key, value] : headers) {
    if (key.size() != name.size() || !iequals(key, name)) continue;
    const std::string_view one = trim(value);
    if (one.empty()) continue;
    if (!out.empty()) out += ',';
    out += one;
    if (out.size() > max) return {};
  }
  return printable(out) ? out : std::string();
}

}  // namespace

TraceContext read_trace_context(const HttpHeaders& headers) {
  TraceContext out;
  out.baggage = joined(headers, "baggage", kMaxBaggage);
  const std::string* found = nullptr;
  constexpr std::string_view kParent = "traceparent";
  for (const auto& [key, value] : headers) {
    if (key.size() != kParent.size() || !iequals(key, kParent)) continue;
    if (found != nullptr) return out;  // two: nobody knows which
    found = &value;
  }
  if (found == nullptr) return out;
  const std::string_view text = trim(*found);
  constexpr std::size_t kLength = 55;
  if (text.size() < kLength || text[2] != '-' || text[35] != '-' || text[52] != '-') return out;
  const auto version = text.substr(0, 2), trace = text.substr(3, 32), parent = text.substr(36, 16),
             flags = text.substr(53, 2);
  if (!is_hex(version) || version == "ff" || !is_hex(trace) || is_zero(trace) || !is_hex(parent) ||
      is_zero(parent) || !is_hex(flags))
    return out;
  // Later versions may say more, after another dash.
  if (version == "00" ? text.size() != kLength : text.size() > kLength && text[kLength] != '-') return out;
  out.trace_id = trace;
  out.parent_id = parent;
  out.flags = static_cast<std::uint8_t>((*from_hex(flags))[0] & 1);
  out.state = joined(headers, "tracestate", kMaxState);
  return out;
}

RequestTrace::RequestTrace(TraceContext incoming, std::shared_ptr<Tracer> tracer, Time started)
    : tracer_(std::move(tracer)) {
  own_.kind = Span::Kind::server;
  own_.started = started;
  take(std::move(incoming));
}

bool RequestTrace::adopt(std::string_view meta) {
  if (came_) return false;
  HttpHeaders said;
  for (const char* name : {"traceparent", "tracestate", "baggage"})
    if (auto value = raw::string_value(raw::find(meta, name))) said.emplace_back(name, std::move(*value));
  TraceContext incoming = read_trace_context(said);
  if (incoming.trace_id.empty()) return false;
  if (incoming.baggage.empty()) incoming.baggage = context_.baggage;
  take(std::move(incoming));
  return true;
}

void RequestTrace::take(TraceContext incoming) {
  context_ = std::move(incoming);
  came_ = !context_.trace_id.empty();
  if (!tracer_) return;
  if (!came_) {
    context_.trace_id = tracer_->new_trace_id();
    context_.flags = tracer_->samples(context_.trace_id) ? 1 : 0;
  }
  recording_ = context_.sampled();
  own_.trace_id = context_.trace_id;
  own_.span_id = tracer_->new_span_id();
  own_.parent_id = came_ ? context_.parent_id : std::string();
  own_.state = context_.state;
  own_.flags = context_.flags;
  // Whoever does not record is no parent of anything: the caller stays it.
  if (recording_ || !came_) context_.parent_id = own_.span_id;
}

void RequestTrace::name(std::string text) {
  if (!recording_) return;
  const std::lock_guard lock(mutex_);
  own_.name = std::move(text);
}

void RequestTrace::attribute(const char* name, std::string text) {
  if (!recording_ || text.empty()) return;
  const std::lock_guard lock(mutex_);
  own_.attributes.push_back({name, std::move(text), std::nullopt});
}

void RequestTrace::end(Time now, int status) {
  if (!recording_) return;
  Span span;
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(ended_, true)) return;
    span = own_;
  }
  span.ended = now;
  span.attributes.push_back({"http.response.status_code", {}, status});
  span.failed = status >= 500;
  tracer_->record(std::move(span));
}

Span RequestTrace::child(std::string name, Span::Kind kind, Time started) const {
  Span out;
  if (!recording_) return out;
  out.trace_id = context_.trace_id;
  out.span_id = tracer_->new_span_id();
  out.parent_id = own_.span_id;
  out.state = context_.state;
  out.flags = context_.flags;
  out.name = std::move(name);
  out.kind = kind;
  out.started = started;
  return out;
}

void RequestTrace::finish(Span span) const {
  if (recording_) tracer_->record(std::move(span));
}

std::string RequestTrace::traceparent(const Span* span) const {
  const bool own = span != nullptr && !span->span_id.empty();
  return "00-" + context_.trace_id + '-' + (own ? span->span_id : context_.parent_id) +
         (context_.sampled() ? "-01" : "-00");
}

void RequestTrace::append_headers(HttpHeaders& headers, const Span* span) const {
  if (!context_.trace_id.empty()) {
    headers.emplace_back("traceparent", traceparent(span));
    if (!context_.state.empty()) headers.emplace_back("tracestate", context_.state);
  }
  if (!context_.baggage.empty()) headers.emplace_back("baggage", context_.baggage);
}

}  // namespace mcpgw::detail
