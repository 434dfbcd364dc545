#include "json/raw.hpp"

#include <algorithm>
#include <array>
#include <boost/container/small_vector.hpp>
#include <charconv>
#include <cstring>

#include "base/scan.hpp"
#include "base/text.hpp"

namespace mcpgw::detail::raw {
namespace {

bool space(char c) noexcept { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool digit(char c) noexcept { return c >= '0' && c <= '9'; }

int hex4(const char* p) noexcept {
  int value = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = p[i];
    int d;
    if (c >= '0' && c <= '9')
      d = c - '0';
    else if (c >= 'a' && c <= 'f')
      d = c - 'a' + 10;
    else if (c >= 'A' && c <= 'F')
      d = c - 'A' + 10;
    else
      return -1;
    value = value << 4 | d;
  }
  return value;
}

void append_utf8(std::string& out, unsigned code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else {
    out += static_cast<char>(0xf0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3f));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  }
}

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

/// What stands between the quotes of a valid string, escapes resolved.
std::string resolve(std::string_view inner) {
  std::string out;
  out.reserve(inner.size());
  for (std::size_t i = 0; i < inner.size(); ++i) {
    if (inner[i] != '\\') {
      out += inner[i];
      continue;
    }
    switch (inner[++i]) {
      case 'b':
        out += '\b';
        break;
      case 'f':
        out += '\f';
        break;
      case 'n':
        out += '\n';
        break;
      case 'r':
        out += '\r';
        break;
      case 't':
        out += '\t';
        break;
      case 'u': {
        const int high = hex4(inner.data() + i + 1);
        i += 4;
        if (high >= 0xd800 && high <= 0xdbff && i + 6 < inner.size() && inner[i + 1] == '\\' &&
            inner[i + 2] == 'u') {
          const int low = hex4(inner.data() + i + 3);
          if (low >= 0xdc00 && low <= 0xdfff) {
            append_utf8(out, 0x10000u + (static_cast<unsigned>(high - 0xd800) << 10) +
                                 static_cast<unsigned>(low - 0xdc00));
            i += 6;
            break;
          }
        }
        if (high >= 0xd800 && high <= 0xdfff)
          out += kReplacement;
        else
          append_utf8(out, static_cast<unsigned>(high));
        break;
      }
      default:
        out += inner[i];
    }
  }
  return out;
}

/// What two parsers could read differently in a name: a surrogate without its other half.
bool has_lone_surrogate(std::string_view inner) {
  for (std::size_t i = 0; i + 1 < inner.size(); ++i) {
    if (inner[i] != '\\') continue;
    if (inner[++i] != 'u') continue;
    const int code = hex4(inner.data() + i + 1);
    i += 4;
    if (code >= 0xdc00 && code <= 0xdfff) return true;
    if (code < 0xd800 || code > 0xdbff) continue;
    if (i + 6 >= inner.size() || inner[i + 1] != '\\' || inner[i + 2] != 'u') return true;
    const int low = hex4(inner.data() + i + 3);
    if (low < 0xdc00 || low > 0xdfff) return true;
    i += 6;
  }
  return false;
}

/// One pass over the text with an explicit stack: depth costs memory that the bound limits, never the call
/// stack.
class Checker {
 public:
  Checker(std::string_view text, std::size_t max_depth)
      : p_(text.data()), end_(text.data() + text.size()), max_depth_(max_depth) {}

  Fault run() {
    if (const Fault fault = document(); fault != Fault::none) return fault;
    skip();
    return p_ == end_ ? Fault::none : Fault::syntax;
  }

 private:
  struct Frame {
    bool object;
    std::size_t first_key;  ///< index into keys_
  };
  struct Key {
    std::string_view inner;
    bool escaped;
  };

  void skip() noexcept {
    while (p_ != end_ && space(*p_)) ++p_;
  }

  Fault document() {
    for (;;) {
      // A value is expected.
      skip();
      if (p_ == end_) return Fault::syntax;
      switch (*p_) {
        case '{':
        case '[': {
          if (frames_.size() >= max_depth_) return Fault::depth;
          const bool object = *p_ == '{';
          frames_.push_back({object, keys_.size()});
          ++p_;
          skip();
          if (p_ == end_) return Fault::syntax;
          if (*p_ == (object ? '}' : ']')) break;  // empty: closed below
          if (object) {
            if (const Fault fault = key(); fault != Fault::none) return fault;
          }
          continue;
        }
        case '"': {
          std::string_view inner;
          bool escaped;
          if (const Fault fault = string(inner, escaped); fault != Fault::none) return fault;
          break;
        }
        case 't':
          if (!word("true")) return Fault::syntax;
          break;
        case 'f':
          if (!word("false")) return Fault::syntax;
          break;
        case 'n':
          if (!word("null")) return Fault::syntax;
          break;
        default:
          if (!number()) return Fault::syntax;
      }
      // A value has ended: go up as far as containers end with it.
      for (;;) {
        if (frames_.empty()) return Fault::none;
        skip();
        if (p_ == end_) return Fault::syntax;
        const Frame& frame = frames_.back();
        if (*p_ == ',') {
          ++p_;
          if (frame.object) {
            skip();
            if (const Fault fault = key(); fault != Fault::none) return fault;
          }
          break;
        }
        if (*p_ != (frame.object ? '}' : ']')) return Fault::syntax;
        ++p_;
        if (frame.object && duplicates(frame.first_key)) return Fault::duplicate;
        keys_.resize(frame.first_key);
        frames_.pop_back();
      }
    }
  }

  /// A member's name and its colon.
  Fault key() {
    if (p_ == end_ || *p_ != '"') return Fault::syntax;
    Key out;
    if (const Fault fault = string(out.inner, out.escaped); fault != Fault::none) return fault;
    if (out.escaped && has_lone_surrogate(out.inner)) return Fault::syntax;
    keys_.push_back(out);
    skip();
    if (p_ == end_ || *p_ != ':') return Fault::syntax;
    ++p_;
    return Fault::none;
  }

  Fault string(std::string_view& inner, bool& escaped) {
    const char* const start = ++p_;
    bool plain_ascii = true;
    escaped = false;
    for (;; ++p_) {
      p_ = scan::past_plain_json(p_, end_);
      if (p_ == end_) return Fault::syntax;
      const auto c = static_cast<unsigned char>(*p_);
      if (c == '"') break;
      if (c < 0x20) return Fault::syntax;
      if (c >= 0x80) plain_ascii = false;
      if (c != '\\') continue;
      escaped = true;
      if (++p_ == end_) return Fault::syntax;
      switch (*p_) {
        case '"':
        case '\\':
        case '/':
        case 'b':
        case 'f':
        case 'n':
        case 'r':
        case 't':
          break;
        case 'u':
          if (end_ - p_ < 5 || hex4(p_ + 1) < 0) return Fault::syntax;
          p_ += 4;
          break;
        default:
          return Fault::syntax;
      }
    }
    inner = std::string_view(start, static_cast<std::size_t>(p_ - start));
    ++p_;
    return plain_ascii || is_utf8(inner) ? Fault::none : Fault::utf8;
  }

  bool word(std::string_view text) noexcept {
    if (static_cast<std::size_t>(end_ - p_) < text.size() || std::memcmp(p_, text.data(), text.size()) != 0)
      return false;
    p_ += text.size();
    return true;
  }

  bool number() noexcept {
    if (*p_ == '-') ++p_;
    if (p_ == end_ || !digit(*p_)) return false;
    if (*p_ == '0') {
      ++p_;
    } else {
      while (p_ != end_ && digit(*p_)) ++p_;
    }
    if (p_ != end_ && *p_ == '.') {
      ++p_;
      if (p_ == end_ || !digit(*p_)) return false;
      while (p_ != end_ && digit(*p_)) ++p_;
    }
    if (p_ != end_ && (*p_ == 'e' || *p_ == 'E')) {
      ++p_;
      if (p_ != end_ && (*p_ == '+' || *p_ == '-')) ++p_;
      if (p_ == end_ || !digit(*p_)) return false;
      while (p_ != end_ && digit(*p_)) ++p_;
    }
    return true;
  }

  bool duplicates(std::size_t from) {
    const std::size_t count = keys_.size() - from;
    if (count < 2) return false;
    // Escaped names are compared as what they mean. Those of closed objects are not needed any more.
    resolved_.clear();
    for (std::size_t i = from; i < keys_.size(); ++i)
      if (keys_[i].escaped) resolved_.push_back(resolve(keys_[i].inner));
    std::size_t next = 0;
    for (std::size_t i = from; i < keys_.size(); ++i)
      if (keys_[i].escaped) keys_[i].inner = resolved_[next++];
    if (count <= 16) {
      for (std::size_t i = from + 1; i < keys_.size(); ++i)
        for (std::size_t j = from; j < i; ++j)
          if (keys_[i].inner == keys_[j].inner) return true;
      return false;
    }
    sorted_.clear();
    for (std::size_t i = from; i < keys_.size(); ++i) sorted_.push_back(keys_[i].inner);
    std::sort(sorted_.begin(), sorted_.end());
    return std::adjacent_find(sorted_.begin(), sorted_.end()) != sorted_.end();
  }

  const char* p_;
  const char* const end_;
  const std::size_t max_depth_;
  // As deep and wide as messages are, without memory of their own.
  boost::container::small_vector<Frame, 16> frames_;
  boost::container::small_vector<Key, 32> keys_;
  std::vector<std::string> resolved_;
  std::vector<std::string_view> sorted_;
};

/// Past the string that starts at `at`, in valid JSON.
std::size_t skip_string(std::string_view text, std::size_t at) noexcept {
  const char* const end = text.data() + text.size();
  for (const char* p = text.data() + at + 1;; p += 2) {
    p = scan::to_quote_or_escape(p, end);
    if (p != end && *p == '"') return static_cast<std::size_t>(p - text.data()) + 1;
    if (end - p <= 2) return text.size();
  }
}

/// Past the value that starts at `at`, in valid JSON.
std::size_t skip_value(std::string_view text, std::size_t at) noexcept {
  if (at >= text.size()) return text.size();
  if (text[at] == '"') return skip_string(text, at);
  if (text[at] != '{' && text[at] != '[') {
    while (at < text.size() && text[at] != ',' && text[at] != '}' && text[at] != ']' && !space(text[at]))
      ++at;
    return at;
  }
  std::size_t depth = 0;
  while (at < text.size()) {
    switch (text[at]) {
      case '"':
        at = skip_string(text, at);
        continue;
      case '{':
      case '[':
        ++depth;
        break;
      case '}':
      case ']':
        if (--depth == 0) return at + 1;
        break;
      default:
        break;
    }
    ++at;
  }
  return text.size();
}

std::size_t skip_space(std::string_view text, std::size_t at) noexcept {
  while (at < text.size() && space(text[at])) ++at;
  return at;
}

/// Calls each(member, begin, end) with the extent of the member in `object` until it returns false.
template <class F>
void walk(std::string_view object, F&& each) {
  std::size_t at = skip_space(object, 0);
  if (at >= object.size() || object[at] != '{') return;
  at = skip_space(object, at + 1);
  while (at < object.size() && object[at] == '"') {
    const std::size_t begin = at;
    const std::size_t key_end = skip_string(object, at);
    Member member;
    member.key = object.substr(at + 1, key_end - at - 2);
    at = skip_space(object, key_end);  // the colon
    at = skip_space(object, at + 1);
    const std::size_t value_end = skip_value(object, at);
    member.value = object.substr(at, value_end - at);
    if (!each(member, begin, value_end)) return;
    at = skip_space(object, value_end);
    if (at >= object.size() || object[at] != ',') return;
    at = skip_space(object, at + 1);
  }
}

}  // namespace

const char* to_string(Fault fault) noexcept {
  switch (fault) {
    case Fault::none:
      return "valid";
    case Fault::syntax:
      return "syntax error";
    case Fault::utf8:
      return "invalid UTF-8";
    case Fault::depth:
      return "nested too deeply";
    case Fault::duplicate:
      return "duplicate member name";
  }
  return "syntax error";
}

Fault check(std::string_view text, std::size_t max_depth) { return Checker(text, max_depth).run(); }

Type type_of(std::string_view value) noexcept {
  switch (value.empty() ? 'n' : value.front()) {
    case '{':
      return Type::object;
    case '[':
      return Type::array;
    case '"':
      return Type::string;
    case 't':
    case 'f':
      return Type::boolean;
    case 'n':
      return Type::null;
    default:
      return Type::number;
  }
}

bool Member::named(std::string_view name) const {
  // What an escape stands for is shorter than it.
  if (key.size() <= name.size()) return key == name;
  return key.find('\\') != std::string_view::npos && resolve(key) == name;
}

std::vector<Member> members(std::string_view object) {
  std::vector<Member> out;
  out.reserve(8);
  walk(object, [&](const Member& member, std::size_t, std::size_t) {
    out.push_back(member);
    return true;
  });
  return out;
}

std::string_view find(std::string_view object, std::string_view name) {
  std::string_view out;
  walk(object, [&](const Member& member, std::size_t, std::size_t) {
    if (!member.named(name)) return true;
    out = member.value;
    return false;
  });
  return out;
}

void find_each(std::string_view object, const std::string_view* names, std::string_view* values,
               std::size_t count) {
  std::size_t left = count;
  walk(object, [&](const Member& member, std::size_t, std::size_t) {
    for (std::size_t i = 0; i < count; ++i) {
      if (!values[i].empty() || !member.named(names[i])) continue;
      values[i] = member.value;
      --left;
      break;
    }
    return left != 0;
  });
}

std::string_view find(std::string_view object, std::string_view name, std::string_view then) {
  return find(find(object, name), then);
}

std::vector<std::string_view> elements(std::string_view array) {
  std::vector<std::string_view> out;
  std::size_t at = skip_space(array, 0);
  if (at >= array.size() || array[at] != '[') return out;
  at = skip_space(array, at + 1);
  while (at < array.size() && array[at] != ']') {
    const std::size_t end = skip_value(array, at);
    out.push_back(array.substr(at, end - at));
    at = skip_space(array, end);
    if (at >= array.size() || array[at] != ',') break;
    at = skip_space(array, at + 1);
  }
  return out;
}

std::optional<std::string> string_value(std::string_view value) {
  if (value.size() < 2 || value.front() != '"') return std::nullopt;
  const std::string_view inner = value.substr(1, value.size() - 2);
  if (inner.find('\\') == std::string_view::npos) return std::string(inner);
  return resolve(inner);
}

std::optional<std::int64_t> int_value(std::string_view value) {
  std::int64_t out = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), out);
  if (value.empty() || error != std::errc() || end != value.data() + value.size()) return std::nullopt;
  return out;
}

std::optional<double> number_value(std::string_view value) {
  double out = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), out);
  if (value.empty() || error != std::errc() || end != value.data() + value.size()) return std::nullopt;
  return out;
}

void append_quoted(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  const char* const end = text.data() + text.size();
  std::optional<bool> valid;  // looked at when something is not ASCII
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char* const plain = scan::past_plain_json(text.data() + i, end);
    out.append(text.data() + i, plain);
    if (plain == end) break;
    i = static_cast<std::size_t>(plain - text.data());
    const auto c = static_cast<unsigned char>(text[i]);
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (c < 0x20) {
          out += "\\u00";
          out += kHex[c >> 4];
          out += kHex[c & 15];
        } else if (valid ? *valid : *(valid = is_utf8(text))) {
          out += static_cast<char>(c);
        } else {
          // Keep what is a whole character, replace what is none.
          std::size_t length = 1;
          while (length < 4 && i + length < text.size() && !is_utf8(text.substr(i, length))) ++length;
          if (is_utf8(text.substr(i, length))) {
            out += text.substr(i, length);
            i += length - 1;
          } else {
            out += kReplacement;
          }
        }
    }
  }
  out += '"';
}

void put(std::string& object, std::string_view name, std::string_view text) {
  object += object.empty() ? "{\"" : ",\"";
  object += name;
  object += "\":";
  append_quoted(object, text);
}

void put_if(std::string& object, std::string_view name, std::string_view text) {
  if (!text.empty()) put(object, name, text);
}

std::string quote(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 2);
  append_quoted(out, text);
  return out;
}

std::string with_member(std::string_view object, std::string_view name, std::string_view value) {
  std::string out;
  out.reserve(object.size() + name.size() + value.size() + 8);
  bool found = false;
  std::size_t last_end = 0;
  walk(object, [&](const Member& member, std::size_t, std::size_t end) {
    last_end = end;
    if (!member.named(name)) return true;
    const auto at = static_cast<std::size_t>(member.value.data() - object.data());
    out += object.substr(0, at);
    out += value;
    out += object.substr(at + member.value.size());
    found = true;
    return false;
  });
  if (found) return out;
  // Appended behind the last member, or as the only one.
  const std::size_t open = object.find('{');
  if (open == std::string_view::npos) return std::string(object);
  const std::size_t at = last_end != 0 ? last_end : open + 1;
  out += object.substr(0, at);
  if (last_end != 0) out += ',';
  append_quoted(out, name);
  out += ':';
  out += value;
  out += object.substr(at);
  return out;
}

std::string without_member(std::string_view object, std::string_view name) {
  std::size_t begin = std::string_view::npos, end = 0, previous_end = 0;
  walk(object, [&](const Member& member, std::size_t from, std::size_t to) {
    if (member.named(name)) {
      begin = from;
      end = to;
      return false;
    }
    previous_end = to;
    return true;
  });
  if (begin == std::string_view::npos) return std::string(object);
  std::string out;
  if (previous_end != 0) {  // with the comma before it
    out += object.substr(0, previous_end);
    out += object.substr(end);
    return out;
  }
  std::size_t after = skip_space(object, end);
  if (after < object.size() && object[after] == ',')
    after = skip_space(object, after + 1);
  else
    after = end;
  out += object.substr(0, begin);
  out += object.substr(after);
  return out;
}

}  // namespace mcpgw::detail::raw
