#include "json/redact.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "base/text.hpp"
#include "json/json.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kDepth = 256;
constexpr std::string_view kRedacted = "[redacted]";
constexpr std::array<std::string_view, 10> kNames = {"password",    "passwd", "secret",        "token",
                                                     "api_key",     "apikey", "authorization", "credential",
                                                     "private_key", "cookie"};

/// A progress token names a call, it opens nothing.
bool harmless(std::string_view name) { return name == "progresstoken"; }

/// As kNames are spelled: in lower case, with underscores.
std::string fold(std::string_view text) {
  std::string out = to_lower(text);
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

/// Whether one of kNames stands in `text` with its letter `text[i]`, one of those that looks_secret() looks
/// for.
bool is_name_at(std::string_view text, std::size_t i) {
  struct Place {
    std::string_view word;
    std::size_t at;  ///< of that letter
  };
  static constexpr std::array<Place, 10> kPlaces = {{{"token", 2},
                                                     {"api_key", 4},
                                                     {"apikey", 3},
                                                     {"private_key", 8},
                                                     {"cookie", 3},
                                                     {"password", 4},
                                                     {"passwd", 4},
                                                     {"authorization", 7},
                                                     {"secret", 2},
                                                     {"credential", 0}}};
  static_assert(kPlaces.size() == kNames.size());
  const auto low = [](char c) {
    return c == '-' ? '_' : c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char here = low(text[i]);
  // What stands beside it rules out nearly all of them.
  const char before = i > 0 ? low(text[i - 1]) : ' ', after = i + 1 < text.size() ? low(text[i + 1]) : ' ';
  if (here == 'c' ? after != 'r' : before != 'o' && before != '_' && before != 'i' && before != 's')
    return false;
  return std::any_of(kPlaces.begin(), kPlaces.end(), [&](const Place& place) {
    if (place.word[place.at] != here || place.at > i || i - place.at + place.word.size() > text.size())
      return false;
    const std::string_view there = text.substr(i - place.at, place.word.size());
    return std::equal(there.begin(), there.end(), place.word.begin(),
                      [&](char x, char y) { return low(x) == y; });
  });
}

/// Looked at together, with whatever instructions the processor has for it.
constexpr std::size_t kTogether = 16;
using Bytes = unsigned char __attribute__((vector_size(kTogether)));

constexpr Bytes all(unsigned char c) { return Bytes{c, c, c, c, c, c, c, c, c, c, c, c, c, c, c, c}; }

/// Whether any of kTogether bytes is one that looks_secret() looks for. Reads the one behind them, too.
bool may_begin_secret(const char* bytes) {
  Bytes here, next;
  std::memcpy(&here, bytes, kTogether);
  std::memcpy(&next, bytes + 1, kTogether);
  const Bytes low = here | all(0x20);
  const auto found = (here == all('\\')) | (low == all('k')) | (low == all('w')) | (low == all('z')) |
                     ((low == all('c')) & ((next | all(0x20)) == all('r')));
  std::array<std::uint64_t, 2> halves;
  static_assert(sizeof halves == sizeof found);
  std::memcpy(halves.data(), &found, sizeof found);
  return (halves[0] | halves[1]) != 0;
}

/// Whether a word of kNames may stand in `text`, or an escape, which may hide one. Each word has one of four
/// letters that are rare enough, at a place that is known, c before an r.
bool looks_secret(std::string_view text) {
  for (std::size_t at = 0; at < text.size(); at += kTogether) {
    const std::size_t left = text.size() - at;
    if (left > kTogether) {
      if (!may_begin_secret(text.data() + at)) continue;
    } else {
      std::array<char, kTogether + 1> rest{};
      std::memcpy(rest.data(), text.data() + at, left);
      if (!may_begin_secret(rest.data())) continue;
    }
    for (std::size_t i = at; i < std::min(text.size(), at + kTogether); ++i) {
      if (text[i] == '\\') return true;
      const char c = static_cast<char>(text[i] | 0x20);
      if ((c == 'k' || c == 'w' || c == 'z' || c == 'c') && is_name_at(text, i)) return true;
    }
  }
  return false;
}

bool hide(std::string& text, const std::vector<std::string>& secrets) {
  bool found = false;
  for (const std::string& secret : secrets) {
    if (secret.size() < 4) {
      if (!secret.empty() && text == secret) return text = kRedacted, true;
      continue;
    }
    for (std::size_t at = 0; (at = text.find(secret, at)) != std::string::npos; at += kRedacted.size()) {
      text.replace(at, secret.size(), kRedacted);
      found = true;
    }
  }
  return found;
}

void redact(OrderedJson& value, const RedactRules& rules) {
  if (value.is_string()) {
    hide(value.get_ref<std::string&>(), rules.secrets);
  } else if (value.is_array()) {
    for (OrderedJson& element : value) redact(element, rules);
  } else if (value.is_object()) {
    for (auto it = value.begin(); it != value.end(); ++it) {
      const bool named = std::find(rules.secret_names.begin(), rules.secret_names.end(), it.key()) !=
                         rules.secret_names.end();
      if (named || (rules.by_name && is_secret_name(it.key()) && !it.value().is_boolean()))
        it.value() = kRedacted;
      else
        redact(it.value(), rules);
    }
  }
}

}  // namespace

bool is_secret_name(std::string_view name) {
  const std::string folded = fold(name);
  return !harmless(folded) && std::any_of(kNames.begin(), kNames.end(), [&](std::string_view word) {
    return folded.find(word) != std::string::npos;
  });
}

std::string redact_body(std::string_view body, const RedactRules& rules) {
  const auto first = body.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || body[first] != '{') return {};
  if (body.size() > rules.max_bytes)
    return R"({"truncated":true,"bytes":)" + std::to_string(body.size()) + R"(,"method":)" +
           raw::quote(rules.method) + "}";
  // Most bodies hold nothing of the kind, and nothing that hides it (escapes): they are kept as they are.
  bool suspicious = rules.by_name ? looks_secret(body) : body.find('\\') != std::string_view::npos;
  for (const std::string& name : rules.secret_names) suspicious |= body.find(name) != std::string_view::npos;
  for (const std::string& secret : rules.secrets)
    suspicious |= !secret.empty() && body.find(secret) != std::string_view::npos;
  if (!suspicious) return std::string(body);
  auto json = parse_ordered_json(body, kDepth);
  if (!json || !json->is_object()) return {};
  redact(*json, rules);
  return dump_json(*json);
}

}  // namespace mcpgw::detail
