#include "gateway/event_log.hpp"

#include <algorithm>

#include "json/raw.hpp"
#include "protocol/message.hpp"

namespace mcpgw::detail {
namespace {

/// Milliseconds that a client waits before it comes back: a restart of the gateway takes about that.
constexpr std::string_view kRetry = "retry: 1000\n";
constexpr std::size_t kMaxIdLength = 64;

std::optional<std::uint64_t> number_of(std::string_view text) {
  if (text.empty() || !std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; }))
    return std::nullopt;
  const auto value = raw::int_value(text);
  if (!value || *value < 0) return std::nullopt;
  return static_cast<std::uint64_t>(*value);
}

}  // namespace

std::string EventId::text() const {
  return epoch + '-' + std::to_string(stream) + '-' + std::to_string(number);
}

std::optional<EventId> EventId::read(std::string_view text) {
  if (text.size() > kMaxIdLength) return std::nullopt;
  const auto first = text.find('-');
  if (first == std::string_view::npos || first == 0) return std::nullopt;
  const auto second = text.find('-', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  const auto stream = number_of(text.substr(first + 1, second - first - 1));
  const auto number = number_of(text.substr(second + 1));
  if (!stream || !number) return std::nullopt;
  return EventId{std::string(text.substr(0, first)), *stream, *number};
}

std::string EventLog::id(std::uint64_t number) const { return EventId{epoch_, stream_, number}.text(); }

std::string EventLog::add(const std::string& message, const std::string& instead) {
  const std::uint64_t number = ++last_;
  std::string text = sse_event(message, id(number));
  const bool too_large = text.size() > kMaxBytes;
  if (too_large && instead.empty()) return text;
  events_.push_back({number, too_large ? sse_event(instead, id(number)) : text});
  bytes_ += events_.back().text.size();
  while (events_.size() > kMaxEvents || bytes_ > kMaxBytes) {
    bytes_ -= events_.front().text.size();
    events_.pop_front();
  }
  return text;
}

std::string EventLog::prime() const {
  std::string out = "id: " + id(last_) + '\n';
  out += kRetry;
  out += "data: \n\n";
  return out;
}

std::string EventLog::after(std::uint64_t number) const {
  std::string out;
  for (const Event& event : events_)
    if (event.number > number) out += event.text;
  return out;
}

void EventLog::clear() {
  events_.clear();
  bytes_ = 0;
}

}  // namespace mcpgw::detail
