// What a request carries of a trace (W3C Trace Context and Baggage), and the spans that the gateway adds to
// it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mcpgw/clock.hpp"
#include "mcpgw/http.hpp"

namespace mcpgw::detail {

class Tracer;

struct TraceContext {
  std::string trace_id;   ///< 32 hex digits; empty: there is none
  std::string parent_id;  ///< 16 hex digits
  std::uint8_t flags = 0;
  std::string state;
  std::string baggage;  ///< of its own: it may be there without a trace

  bool sampled() const noexcept { return (flags & 1) != 0; }
};

/// What the headers say. Malformed ones are as good as none; what is longer than anybody sends is left out.
TraceContext read_trace_context(const HttpHeaders& headers);

/// One step of a request, with a beginning and an end.
struct Span {
  enum class Kind { internal = 1, server = 2, client = 3 };
  struct Attribute {
    const char* name;
    std::string text;
    std::optional<std::int64_t> number;  ///< instead of the text
  };

  std::string trace_id;
  std::string span_id;
  std::string parent_id;  ///< empty: the first of its trace
  std::string state;
  std::uint8_t flags = 0;
  std::string name;
  Kind kind = Kind::internal;
  Time started{};
  Time ended{};
  std::vector<Attribute> attributes;
  bool failed = false;
};

/// An HTTP request's part in a trace: made when it brings one, or when the gateway records its own. Safe from
/// any thread.
class RequestTrace {
 public:
  /// `tracer` is null when nothing is recorded: then the context is passed on as it came.
  RequestTrace(TraceContext incoming, std::shared_ptr<Tracer> tracer, Time started);

  /// What the message says in its "_meta" (MCP 2026-07-28, basic, "_meta"), a JSON object or empty, when no
  /// header said it; true when it counts. Before anybody else uses the trace.
  bool adopt(std::string_view meta);
  const std::string& trace_id() const noexcept { return context_.trace_id; }
  bool recording() const noexcept { return recording_; }
  /// Of the request's own span.
  void name(std::string text);
  void attribute(const char* name, std::string text);
  /// Ends the request's own span; once.
  void end(Time now, int status);

  /// A span below the request's, to be filled and given to finish(). Its id is what goes to others.
  Span child(std::string name, Span::Kind kind, Time started) const;
  void finish(Span span) const;
  std::string traceparent(const Span* span) const;
  /// What is sent on: with the id of `span`, or, when nothing is recorded, what came.
  void append_headers(HttpHeaders& headers, const Span* span) const;

 private:
  void take(TraceContext incoming);

  TraceContext context_;
  const std::shared_ptr<Tracer> tracer_;
  bool came_ = false;  ///< from the caller, rather than begun here
  bool recording_ = false;
  std::mutex mutex_;
  Span own_;            // guarded by the mutex, but for its ids
  bool ended_ = false;  // guarded by the mutex
};

}  // namespace mcpgw::detail
