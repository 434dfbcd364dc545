#include "runtime/sse_decoder.hpp"

#include <algorithm>

namespace mcpgw::detail {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

std::optional<long> parse_retry(std::string_view text) {
  if (text.empty() || text.size() > 12) return std::nullopt;
  long value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + (c - '0');
  }
  return value;
}

}  // namespace

bool SseDecoder::feed(std::string_view bytes, std::vector<Event>& out) {
  while (!bytes.empty()) {
    if (skip_lf_) {
      skip_lf_ = false;
      if (bytes[0] == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
    }
    const std::size_t end = std::min(bytes.find_first_of("\r\n"), bytes.size());
    const std::size_t held =
        buffer_.size() + event_.event.size() + event_.data.size() + (event_.id ? event_.id->size() : 0);
    if (held > max_ || end > max_ - held) return false;
    if (end == bytes.size()) {
      buffer_.append(bytes);
      return true;
    }
    skip_lf_ = bytes[end] == '\r';
    if (buffer_.empty()) {
      line(bytes.substr(0, end), out);
    } else {
      buffer_.append(bytes.substr(0, end));
      const std::string whole = std::move(buffer_);
      buffer_.clear();
      line(whole, out);
    }
    bytes.remove_prefix(end + 1);
  }
  return true;
}

void SseDecoder::line(std::string_view text, std::vector<Event>& out) {
  if (first_) {
    first_ = false;
    if (text.substr(0, kByteOrderMark.size()) == kByteOrderMark) text.remove_prefix(kByteOrderMark.size());
  }
  if (text.empty()) {
    if (!any_) return;
    any_ = false;
    Event done = std::move(event_);
    event_ = Event();
    if (done.has_data) done.data.pop_back();  // the newline after the last data line
    if (done.event.empty()) done.event = "message";
    if (done.id) last_id_ = *done.id;
    out.push_back(std::move(done));
    return;
  }
  const std::size_t colon = std::min(text.find(':'), text.size());
  if (colon == 0) return;  // a comment
  const std::string_view name = text.substr(0, colon);
  std::string_view value = text.substr(std::min(colon + 1, text.size()));
  if (!value.empty() && value[0] == ' ') value.remove_prefix(1);
  if (name == "data") {
    event_.data.append(value).push_back('\n');
    event_.has_data = any_ = true;
  } else if (name == "event") {
    event_.event = value;
    any_ = true;
  } else if (name == "id") {
    if (value.find('\0') != std::string_view::npos) return;
    event_.id = std::string(value);
    any_ = true;
  } else if (name == "retry") {
    if (const auto retry = parse_retry(value)) {
      event_.retry = retry;
      any_ = true;
    }
  }
}

}  // namespace mcpgw::detail
