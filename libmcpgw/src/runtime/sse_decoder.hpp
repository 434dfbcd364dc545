// text/event-stream as it comes in.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mcpgw::detail {

/// Incremental decoder of text/event-stream (WHATWG HTML, server-sent events).
class SseDecoder {
 public:
  struct Event {
    std::string event;  ///< "message" when the stream gave none
    std::string data;
    std::optional<std::string> id;  ///< when this event set one
    std::optional<long> retry;      ///< milliseconds, when the event had one
    bool has_data = false;          ///< a data field was present, even if empty
  };
  explicit SseDecoder(std::size_t max_event_bytes) : max_(max_event_bytes) {}
  /// Feeds bytes, appends finished events. False when an event exceeds the bound.
  bool feed(std::string_view bytes, std::vector<Event>& out);
  /// The last id seen, for Last-Event-ID.
  const std::string& last_id() const noexcept { return last_id_; }

 private:
  void line(std::string_view text, std::vector<Event>& out);
  std::size_t max_;
  std::string buffer_;
  Event event_;
  bool any_ = false;
  bool skip_lf_ = false;
  bool first_ = true;
  std::string last_id_;
};

}  // namespace mcpgw::detail
