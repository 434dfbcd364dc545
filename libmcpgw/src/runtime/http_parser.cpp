#include "runtime/http_parser.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxFields = 512;

struct CharTable {
  std::array<bool, 256> token{};
  constexpr CharTable() {
    for (int c = 0; c < 256; ++c) {
      const bool alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
      token[c] =
          alnum || std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
    }
  }
};
constexpr CharTable kChars;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::string_view trim_blanks(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::optional<std::uint64_t> parse_length(std::string_view text) {
  if (text.empty() || text.size() > 18) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    if (!is_digit(c)) return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return value;
}

bool list_has(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    if (iequals(trim_blanks(list.substr(0, comma)), word)) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

/// "HTTP/1.1 200 OK". Sets `minor` and the status.
bool parse_status_line(std::string_view line, int& minor, int& status) {
  if (line.size() < 12 || line.substr(0, 7) != "HTTP/1." || (line[7] != '0' && line[7] != '1') ||
      line[8] != ' ')
    return false;
  if (!is_digit(line[9]) || !is_digit(line[10]) || !is_digit(line[11])) return false;
  if (line.size() > 12 && line[12] != ' ') return false;
  minor = line[7] - '0';
  status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
  return status >= 100 && status <= 599 && is_field_value(line.substr(12));
}

/// Whether `text` can still become a status line: garbage is noticed with its first bytes.
bool may_be_status_line(std::string_view text) {
  constexpr std::string_view kStart = "HTTP/1.";
  const std::size_t n = std::min(text.size(), kStart.size());
  return text.substr(0, n) == kStart.substr(0, n);
}

/// A field line into name and value; false when it is none (folded lines included).
bool parse_field(std::string_view line, std::string_view& name, std::string_view& value) {
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos) return false;
  name = line.substr(0, colon);
  value = trim_blanks(line.substr(colon + 1));
  return is_token(name) && is_field_value(value);
}

/// Collects what decides about framing and reuse while the fields are read.
struct Facts {
  std::optional<std::uint64_t> length;
  bool chunked = false;
  bool close = false;
  bool keep_alive = false;

  bool add(std::string_view name, std::string_view value) {
    switch (name.size()) {
      case 10:
        if (!iequals(name, "Connection")) break;
        close = close || list_has(value, "close");
        keep_alive = keep_alive || list_has(value, "keep-alive");
        break;
      case 14:
        if (!iequals(name, "Content-Length")) break;
        if (const auto n = parse_length(value); !n || (length && *length != *n)) return false;
        length = parse_length(value);
        break;
      case 17:
        if (!iequals(name, "Transfer-Encoding")) break;
        if (chunked || !iequals(value, "chunked")) return false;
        chunked = true;
        break;
      default:
        break;
    }
    return true;
  }
};

bool settle(const Facts& facts, int minor, bool head_request, ResponseHead& head) {
  if (facts.chunked && (facts.length || minor == 0)) return false;
  head.keep_alive = minor == 1 ? !facts.close : facts.keep_alive && !facts.close;
  head.length = 0;
  if (head.status < 200 || head.status == 204 || head.status == 304 || head_request) {
    head.framing = Framing::none;
  } else if (facts.chunked) {
    head.framing = Framing::chunked;
  } else if (facts.length) {
    head.length = *facts.length;
    head.framing = head.length == 0 ? Framing::none : Framing::length;
  } else {
    head.framing = Framing::until_close;
    head.keep_alive = false;
  }
  return true;
}

Parse read_head(std::string_view text, bool head_request, ResponseHead& head) {
  std::size_t end = text.find("\r\n");
  int minor = 0;
  if (!parse_status_line(text.substr(0, end), minor, head.status)) return Parse::malformed;
  text.remove_prefix(end + 2);
  head.headers.clear();
  head.headers.reserve(8);
  Facts facts;
  while (text.substr(0, 2) != "\r\n") {
    end = text.find("\r\n");
    std::string_view name;
    std::string_view value;
    if (!parse_field(text.substr(0, end), name, value)) return Parse::malformed;
    if (head.headers.size() >= kMaxFields) return Parse::too_large;
    if (!facts.add(name, value)) return Parse::malformed;
    head.headers.emplace_back(name, value);
    text.remove_prefix(end + 2);
  }
  return settle(facts, minor, head_request, head) ? Parse::done : Parse::malformed;
}

int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

bool is_token(std::string_view text) noexcept {
  return !text.empty() && std::all_of(text.begin(), text.end(),
                                      [](char c) { return kChars.token[static_cast<unsigned char>(c)]; });
}

bool is_field_value(std::string_view text) noexcept { return !has_control(text, "\t"); }

Parse HeadParser::parse(std::string_view buffer, bool head_request, ResponseHead& head) {
  if (!may_be_status_line(buffer)) return Parse::malformed;
  while (scanned_ < buffer.size()) {
    const void* found = std::memchr(buffer.data() + scanned_, '\n', buffer.size() - scanned_);
    if (found == nullptr) {
      scanned_ = buffer.size();
      break;
    }
    const std::size_t lf = static_cast<std::size_t>(static_cast<const char*>(found) - buffer.data());
    if (lf >= max_) return Parse::too_large;
    if (lf == line_start_ || buffer[lf - 1] != '\r') return Parse::malformed;
    const bool blank = lf - 1 == line_start_;
    line_start_ = scanned_ = lf + 1;
    if (blank) return read_head(buffer.substr(0, line_start_), head_request, head);
  }
  return scanned_ >= max_ ? Parse::too_large : Parse::more;
}

Parse ChunkDecoder::feed(std::string_view in, std::string& out, std::size_t& used) {
  std::size_t at = 0;
  const auto spend = [this] { return overhead_left_ > 0 && overhead_left_-- > 0; };
  for (; at < in.size() && state_ != State::end; ++at) {
    const char c = in[at];
    switch (state_) {
      case State::size_start:
        left_ = 0;
        digits_ = 0;
        state_ = State::size;
        [[fallthrough]];
      case State::size:
        if (const int digit = hex_digit(c); digit >= 0) {
          if (++digits_ > 15) return Parse::malformed;
          left_ = left_ * 16 + static_cast<std::uint64_t>(digit);
        } else if (digits_ == 0) {
          return Parse::malformed;
        } else if (c == '\r') {
          state_ = State::size_lf;
        } else if (c == ';') {
          state_ = State::extension;
        } else if (c == ' ' || c == '\t') {
          state_ = State::space;
        } else {
          return Parse::malformed;
        }
        break;
      case State::space:  // allowed before an extension, as senders of old do
        if (!spend()) return Parse::too_large;
        if (c == ';') {
          state_ = State::extension;
        } else if (c != ' ' && c != '\t') {
          return Parse::malformed;
        }
        break;
      case State::extension:
        if (!spend()) return Parse::too_large;
        if (c == '\r') {
          state_ = State::size_lf;
        } else if (!is_field_value({&c, 1})) {
          return Parse::malformed;
        }
        break;
      case State::size_lf:
        if (c != '\n') return Parse::malformed;
        state_ = left_ == 0 ? State::trailer : State::data;
        break;
      case State::data: {
        const std::size_t n = static_cast<std::size_t>(std::min<std::uint64_t>(left_, in.size() - at));
        out.append(in.substr(at, n));
        left_ -= n;
        at += n - 1;
        if (left_ == 0) state_ = State::data_cr;
        break;
      }
      case State::data_cr:
        if (c != '\r') return Parse::malformed;
        state_ = State::data_lf;
        break;
      case State::data_lf:
        if (c != '\n') return Parse::malformed;
        state_ = State::size_start;
        break;
      case State::trailer:  // checked and dropped: nothing may depend on fields that come after the body
        if (c == '\r') {
          state_ = State::trailer_lf;
        } else {
          if (!spend()) return Parse::too_large;
          trailer_ += c;
        }
        break;
      case State::trailer_lf: {
        if (c != '\n') return Parse::malformed;
        std::string_view name;
        std::string_view value;
        if (trailer_.empty()) {
          state_ = State::end;
        } else if (!parse_field(trailer_, name, value)) {
          return Parse::malformed;
        } else {
          trailer_.clear();
          state_ = State::trailer;
        }
        break;
      }
      case State::end:
        break;
    }
  }
  used = at;
  return state_ == State::end ? Parse::done : Parse::more;
}

}  // namespace mcpgw::detail
