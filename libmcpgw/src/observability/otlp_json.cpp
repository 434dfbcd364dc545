// Spans as OTLP/JSON (opentelemetry-proto 1.x, ExportTraceServiceRequest).
#include "json/raw.hpp"
#include "mcpgw/version.hpp"
#include "observability/tracer.hpp"

namespace mcpgw::detail {
namespace {

void put_attribute(std::string& out, std::string_view name, std::string_view text,
                   std::optional<std::int64_t> number = std::nullopt) {
  if (out.back() != '[') out += ',';
  out += R"({"key":)";
  raw::append_quoted(out, name);
  // 64-bit numbers are strings in the JSON form of protobuf.
  if (number) {
    out += R"(,"value":{"intValue":")" + std::to_string(*number) + R"("}})";
    return;
  }
  out += R"(,"value":{"stringValue":)";
  raw::append_quoted(out, text);
  out += "}}";
}

std::string nanoseconds(Time time) { return std::to_string(time.time_since_epoch().count() * 1000); }

void put_span(std::string& out, const Span& span) {
  out += R"({"traceId":")" + span.trace_id + R"(","spanId":")" + span.span_id + '"';
  if (!span.parent_id.empty()) out += R"(,"parentSpanId":")" + span.parent_id + '"';
  if (!span.state.empty()) {
    out += R"(,"traceState":)";
    raw::append_quoted(out, span.state);
  }
  out += R"(,"flags":)" + std::to_string(span.flags) + R"(,"name":)";
  raw::append_quoted(out, span.name);
  out += R"(,"kind":)" + std::to_string(static_cast<int>(span.kind)) + R"(,"startTimeUnixNano":")" +
         nanoseconds(span.started) + R"(","endTimeUnixNano":")" +
         nanoseconds(std::max(span.started, span.ended)) + R"(","attributes":[)";
  for (const Span::Attribute& one : span.attributes) put_attribute(out, one.name, one.text, one.number);
  out += span.failed ? R"(],"status":{"code":2}})" : R"(],"status":{}})";
}

}  // namespace

std::string otlp_json(const std::vector<Span>& spans, std::string_view service_name,
                      std::string_view instance_id) {
  std::string out = R"({"resourceSpans":[{"resource":{"attributes":[)";
  put_attribute(out, "service.name", service_name);
  put_attribute(out, "service.version", version());
  put_attribute(out, "service.instance.id", instance_id);
  out += R"(]},"scopeSpans":[{"scope":{"name":"mcpgw","version":)";
  raw::append_quoted(out, version());
  out += R"(},"spans":[)";
  bool first = true;
  for (const Span& span : spans) {
    if (!first) out += ',';
    first = false;
    put_span(out, span);
  }
  return out += "]}]}]}";
}

}  // namespace mcpgw::detail
