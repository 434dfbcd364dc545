// CallRecord: one use of an item, counted, timed and traced on its way: judged, given a connection, sent,
// answered.
#pragma once

#include <memory>
#include <string>

#include "gateway/client_call.hpp"
#include "gateway/metrics.hpp"
#include "gateway/statistics.hpp"
#include "observability/trace.hpp"

namespace mcpgw::detail {

/// Lives as long as the call's way to its target; what the audit row says at its end is what is counted.
class CallRecord {
 public:
  /// `item` is a name or URI that the target knows.
  CallRecord(ClientCall& call, const Target& target, ResourceType type, const std::string& item);
  ~CallRecord();
  CallRecord(const CallRecord&) = delete;
  CallRecord& operator=(const CallRecord&) = delete;

  void judged(bool allowed);
  void connecting();
  /// Puts the trace's headers into the request.
  void sending(UpstreamCall& request);
  void answered(bool ok);

 private:
  void begin(const char* step, Span::Kind kind);
  void end(bool ok);
  bool traced() const noexcept { return call_.trace != nullptr && call_.trace->recording(); }

  ClientCall& call_;
  const std::string target_;
  const ResourceType type_;
  const std::shared_ptr<TargetSeries> series_;
  const std::shared_ptr<ToolSeries> tool_;
  const Statistics::InFlight running_;
  const Duration started_;
  Duration sent_{};
  Duration answered_{};  ///< zero: it was not
  bool sending_ = false;
  Span step_;
};

}  // namespace mcpgw::detail
