#include "server/framing.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/text.hpp"

namespace mcpgw::detail::server {
namespace {

constexpr std::size_t kMaxMethod = 32;
constexpr std::size_t kMaxChunkLine = 1024;             // size and extensions of one chunk
constexpr std::size_t kMaxChunkExtensions = 16 * 1024;  // of one body
constexpr std::size_t kKeepBuffer = 4 * 1024;           // larger buffers are given back between requests

constexpr std::array<bool, 256> make_table(std::string_view extra) {
  std::array<bool, 256> table{};
  for (int c = '0'; c <= '9'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (int c = 'A'; c <= 'Z'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (int c = 'a'; c <= 'z'; ++c) table[static_cast<std::size_t>(c)] = true;
  for (const char c : extra) table[static_cast<unsigned char>(c)] = true;
  return table;
}
constexpr auto kTokenChar = make_table("!#$%&'*+-.^_`|~");
constexpr auto kHostChar = make_table("-._~%!$&'()*+,;=:[]");

bool only(const std::array<bool, 256>& table, std::string_view text) noexcept {
  return std::all_of(text.begin(), text.end(), [&](char c) { return table[static_cast<unsigned char>(c)]; });
}

/// Visible ASCII and obs-text.
bool is_target_text(std::string_view text) noexcept {
  return !has_control(text) && text.find(' ') == std::string_view::npos;
}
/// Blank and tab too.
bool is_value_text(std::string_view text) noexcept { return !has_control(text, "\t"); }

bool is_blank(char c) noexcept { return c == ' ' || c == '\t'; }

/// "http://host/path", which only proxies need but every server must take (RFC 9112 3.2.2). No user
/// information.
bool is_absolute(std::string_view target) noexcept {
  if (!starts_with_icase(target, "http://") && !starts_with_icase(target, "https://")) return false;
  const std::string_view rest = target.substr(target.find("://") + 3);
  const std::string_view authority = rest.substr(0, rest.find_first_of("/?"));
  return !authority.empty() && only(kHostChar, authority);
}

int hex_value(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// Of at most 18 digits; none: 0.
std::size_t to_number(std::string_view digits) noexcept {
  std::size_t out = 0;
  for (const char c : digits) out = out * 10 + static_cast<std::size_t>(c - '0');
  return out;
}

/// Calls `use` with each element of a comma-separated list.
template <class F>
void each_element(std::string_view list, F use) {
  while (!list.empty()) {
    const auto comma = list.find(',');
    use(trim(list.substr(0, comma)));
    if (comma == std::string_view::npos) return;
    list.remove_prefix(comma + 1);
  }
}

}  // namespace

bool is_token(std::string_view text) noexcept { return !text.empty() && only(kTokenChar, text); }

RequestReader::Progress RequestReader::fail(int status, const char* code, const char* message) noexcept {
  if (!refused()) error_ = {status, code, message};
  return Progress::failed;
}

bool RequestReader::take_continue() noexcept {
  // A sender that has already begun with the body waits for nothing.
  const bool waits = head_.expect && !continued_ && head_.http11 && body_.empty() && line_.empty() &&
                     ((stage_ == Stage::fixed_body && remaining_ != 0) || stage_ == Stage::chunk_size);
  continued_ = true;
  return waits;
}

std::string_view RequestReader::find(std::string_view name) const noexcept {
  for (const HeaderSpan& span : head_.headers)
    if (iequals(text(span.name), name)) return text(span.value);
  return {};
}

void RequestReader::next() noexcept {
  if (kept_.capacity() > kKeepBuffer) kept_ = {};
  kept_.clear();
  if (line_.capacity() > kKeepBuffer) line_ = {};
  line_.clear();
  body_ = {};
  head_.headers.clear();
  base_ = nullptr;
  head_.method = head_.target = head_.length = {};
  line_start_ = scan_ = head_.size = remaining_ = overhead_ = trailer_count_ = 0;
  error_ = {};
  stage_ = Stage::head;
  have_request_line_ = skipped_blank_ = close_ = asked_keep_alive_ = have_length_ = have_host_ = continued_ =
      false;
  head_.chunked = head_.expect = false;
  head_.http11 = head_.keep_alive = true;
}

RequestReader::Progress RequestReader::feed(std::string_view data, std::size_t& used, const Head* known) {
  used = 0;
  if (refused()) return Progress::failed;
  if (stage_ == Stage::head) {
    if (known == nullptr || !kept_.empty() || !begin_known(data, *known, used)) {
      const Progress progress = feed_head(data, used);
      if (progress != Progress::complete) return progress;
    }
    if (stage_ == Stage::done) return Progress::complete;
  }
  std::size_t body_used = 0;
  const Progress progress = feed_body(data.substr(used), body_used);
  const std::size_t head_used = used;
  used += body_used;
  // What the head's views point to ends with this call unless the request does.
  if (progress != Progress::complete && kept_.empty()) {
    kept_.assign(data.data(), head_used);
    base_ = kept_.data();
  }
  return progress;
}

// --- the head --------------------------------------------------------------------------------------------

RequestReader::Progress RequestReader::feed_head(std::string_view data, std::size_t& used) {
  const std::size_t before = kept_.size();
  std::size_t size = data.size();
  if (before == 0) {
    base_ = data.data();
  } else {
    // One byte past the limit is enough to see that it is met.
    const std::size_t take =
        std::min(data.size(), limits_->max_header_bytes + 1 - std::min(before, limits_->max_header_bytes));
    kept_.append(data.data(), take);
    base_ = kept_.data();
    size = kept_.size();
  }
  scan_lines(size);
  if (refused()) {
    if (before == 0) {
      kept_.assign(data.data(), size);
      base_ = kept_.data();
    }
    used = data.size();
    return Progress::failed;
  }
  if (stage_ == Stage::head) {
    if (before == 0) kept_.assign(data.data(), size);
    base_ = kept_.data();
    used = data.size();
    return Progress::need_more;
  }
  if (before != 0) kept_.resize(head_.size);
  base_ = before == 0 ? data.data() : kept_.data();
  used = head_.size - before;
  return Progress::complete;
}

void RequestReader::scan_lines(std::size_t size) {
  while (stage_ == Stage::head && !refused()) {
    const auto* newline =
        size > scan_ ? static_cast<const char*>(std::memchr(base_ + scan_, '\n', size - scan_)) : nullptr;
    const std::size_t stop = newline == nullptr ? size : static_cast<std::size_t>(newline - base_) + 1;
    if (!have_request_line_ && stop - line_start_ > limits_->max_request_line) {
      fail(414, "uri_too_long", "The request line is too long");
      return;
    }
    if (stop > limits_->max_header_bytes) {
      fail(431, "headers_too_large", "The request headers are too large");
      return;
    }
    if (newline == nullptr) {
      scan_ = size;
      // What cannot become a request line is refused at once instead of at its timeout (TLS on this port,
      // say).
      if (!have_request_line_ && size > line_start_ && base_[line_start_] != '\r' &&
          !kTokenChar[static_cast<unsigned char>(base_[line_start_])])
        bad("The request line is malformed");
      return;
    }
    const std::size_t end = stop - 1;
    if (end == line_start_ || base_[end - 1] != '\r') {
      bad("A line must end with CRLF");
      return;
    }
    const std::size_t begin = line_start_;
    line_start_ = scan_ = stop;
    const bool blank = end - 1 == begin;
    if (!have_request_line_) {
      if (blank && !skipped_blank_) {
        skipped_blank_ = true;  // RFC 9112 2.2: old clients send one after a body
      } else {
        request_line(begin, end - 1);
      }
    } else if (blank) {
      head_.size = stop;
      finish_head();
    } else {
      header_line(begin, end - 1);
    }
  }
}

void RequestReader::request_line(std::size_t begin, std::size_t end) {
  have_request_line_ = true;
  const std::string_view line(base_ + begin, end - begin);
  const auto first = line.find(' ');
  const auto last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) {
    bad("The request line is malformed");
    return;
  }
  const std::string_view name = line.substr(0, first);
  const std::string_view where = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (name.size() > kMaxMethod || !is_token(name)) {
    bad("The method is malformed");
  } else if (where.empty() || !is_target_text(where) || where.find('#') != std::string_view::npos) {
    bad("The request target is malformed");
  } else if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    bad("The HTTP version is not supported");
  } else if (where.front() != '/' && !(where == "*" && name == "OPTIONS") && !is_absolute(where)) {
    bad("The request target is malformed");
  } else {
    head_.http11 = version.back() == '1';
    head_.method = {static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(name.size())};
    head_.target = {static_cast<std::uint32_t>(begin + first + 1), static_cast<std::uint32_t>(where.size())};
  }
}

void RequestReader::header_line(std::size_t begin, std::size_t end) {
  const std::string_view line(base_ + begin, end - begin);
  if (head_.headers.size() >= limits_->max_headers) {
    fail(431, "headers_too_large", "There are too many request headers");
    return;
  }
  const auto colon = line.find(':');
  // The token rule refuses a folded line, a blank before the colon and an empty name alike.
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
    bad("A header line is malformed");
    return;
  }
  std::size_t from = colon + 1;
  std::size_t to = line.size();
  while (from < to && is_blank(line[from])) ++from;
  while (to > from && is_blank(line[to - 1])) --to;
  const std::string_view value = line.substr(from, to - from);
  if (!is_value_text(value)) {
    bad("A header value holds a control character");
    return;
  }
  if (!framing_header(line.substr(0, colon), value)) return;
  head_.headers.push_back(
      {{static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(colon)},
       {static_cast<std::uint32_t>(begin + from), static_cast<std::uint32_t>(value.size())}});
}

bool RequestReader::framing_header(std::string_view name, std::string_view value) {
  switch (name.size()) {
    case 4:
      if (!iequals(name, "host")) break;
      if (have_host_) bad("There is more than one Host header");
      if (!only(kHostChar, value)) bad("The Host header is malformed");
      have_host_ = true;
      break;
    case 6:
      if (!iequals(name, "expect")) break;
      if (!iequals(value, "100-continue")) fail(417, "expectation_failed", "This expectation cannot be met");
      head_.expect = true;
      break;
    case 10:
      if (!iequals(name, "connection")) break;
      each_element(value, [this](std::string_view option) {
        if (iequals(option, "close")) close_ = true;
        if (iequals(option, "keep-alive")) asked_keep_alive_ = true;
      });
      break;
    case 14: {
      if (!iequals(name, "content-length")) break;
      if (have_length_) bad("There is more than one Content-Length header");
      have_length_ = true;
      const bool digits = !value.empty() && std::all_of(value.begin(), value.end(),
                                                        [](char c) { return c >= '0' && c <= '9'; });
      if (!digits || value.size() > 18) {
        bad("The Content-Length header is malformed");
        break;
      }
      remaining_ = to_number(value);
      head_.length = {static_cast<std::uint32_t>(value.data() - base_),
                      static_cast<std::uint32_t>(value.size())};
      break;
    }
    case 17:
      if (!iequals(name, "transfer-encoding")) break;
      if (head_.chunked || !iequals(value, "chunked")) bad("The Transfer-Encoding is not supported");
      head_.chunked = true;
      break;
    default:
      break;
  }
  return !refused();
}

void RequestReader::finish_head() {
  head_.keep_alive = !close_ && (head_.http11 || asked_keep_alive_);
  if (head_.http11 && !have_host_) {
    bad("The Host header is missing");
  } else if (head_.chunked && have_length_) {
    bad("Content-Length and Transfer-Encoding exclude each other");
  } else if (head_.chunked && !head_.http11) {
    bad("HTTP/1.0 has no Transfer-Encoding");
  } else if (remaining_ > limits_->max_body) {
    fail(413, "body_too_large", "The request body is too large");
  }
  begin_body();
}

bool RequestReader::begin_known(std::string_view data, const Head& known, std::size_t& used) {
  const std::size_t size = to_number(data.substr(known.length.at, known.length.size));
  if (size > limits_->max_body) return false;
  base_ = data.data();
  head_ = known;
  used = head_.size;
  remaining_ = size;
  begin_body();
  return true;
}

void RequestReader::begin_body() {
  if (head_.chunked) {
    stage_ = Stage::chunk_size;
  } else if (remaining_ != 0) {
    stage_ = Stage::fixed_body;
    // The length is only a promise: memory is taken as bytes come.
    body_.reserve(std::min<std::size_t>(remaining_, 64 * 1024));
  } else {
    stage_ = Stage::done;
  }
}

// --- the body --------------------------------------------------------------------------------------------

RequestReader::Progress RequestReader::feed_body(std::string_view data, std::size_t& used) {
  while (!refused() && stage_ != Stage::done && used < data.size()) {
    switch (stage_) {
      case Stage::fixed_body:
      case Stage::chunk_data: {
        const std::size_t take = std::min(remaining_, data.size() - used);
        body_.append(data.data() + used, take);
        used += take;
        remaining_ -= take;
        if (remaining_ == 0) stage_ = stage_ == Stage::fixed_body ? Stage::done : Stage::chunk_end;
        break;
      }
      case Stage::chunk_end:
        if (take_line(data, used, 2)) {
          if (!line_.empty()) bad("A chunk is longer than its size");
          stage_ = Stage::chunk_size;
        }
        break;
      case Stage::chunk_size:
        if (take_line(data, used, kMaxChunkLine)) chunk_size_line();
        break;
      case Stage::trailers:
        if (take_line(data, used, limits_->max_header_bytes)) trailer_line();
        break;
      case Stage::head:
      case Stage::done:
        break;
    }
  }
  if (refused()) return Progress::failed;
  return stage_ == Stage::done ? Progress::complete : Progress::need_more;
}

bool RequestReader::take_line(std::string_view data, std::size_t& used, std::size_t limit) {
  const std::string_view rest = data.substr(used);
  const auto newline = rest.find('\n');
  const std::size_t take = newline == std::string_view::npos ? rest.size() : newline + 1;
  if (line_.size() + take > limit) {
    if (stage_ == Stage::trailers) {
      fail(431, "headers_too_large", "The trailers are too large");
    } else {
      bad("A chunk is malformed");
    }
    return false;
  }
  line_.append(rest.data(), take);
  used += take;
  if (newline == std::string_view::npos) {
    // Not a digit, not a line end: no reason to wait for the rest.
    if (stage_ == Stage::chunk_size && hex_value(line_.front()) < 0) bad("A chunk size is malformed");
    return false;
  }
  if (line_.size() < 2 || line_[line_.size() - 2] != '\r') {
    bad("A line must end with CRLF");
    return false;
  }
  line_.resize(line_.size() - 2);
  return true;
}

void RequestReader::chunk_size_line() {
  std::size_t digits = 0;
  std::size_t size = 0;
  for (; digits < line_.size() && hex_value(line_[digits]) >= 0; ++digits) {
    if (digits == 15) break;
    size = size * 16 + static_cast<std::size_t>(hex_value(line_[digits]));
  }
  const std::string_view extensions = std::string_view(line_).substr(digits);
  overhead_ += extensions.size();
  if (digits == 0 || (!extensions.empty() && extensions.front() != ';') || !is_value_text(extensions)) {
    bad("A chunk size is malformed");
  } else if (overhead_ > kMaxChunkExtensions) {
    bad("The chunk extensions are too large");
  } else if (size > limits_->max_body - std::min(body_.size(), limits_->max_body)) {
    fail(413, "body_too_large", "The request body is too large");
  }
  line_.clear();
  remaining_ = size;
  stage_ = size == 0 ? Stage::trailers : Stage::chunk_data;
}

void RequestReader::trailer_line() {
  if (line_.empty()) {
    stage_ = Stage::done;
    return;
  }
  // Checked like headers and dropped: no trailer means anything to us, and none may act as a header.
  const auto colon = line_.find(':');
  overhead_ += line_.size() + 2;
  if (colon == std::string::npos || !is_token(std::string_view(line_).substr(0, colon)) ||
      !is_value_text(std::string_view(line_).substr(colon + 1))) {
    bad("A trailer line is malformed");
  } else if (++trailer_count_ > limits_->max_headers || overhead_ > limits_->max_header_bytes) {
    fail(431, "headers_too_large", "The trailers are too large");
  }
  line_.clear();
}

}  // namespace mcpgw::detail::server
