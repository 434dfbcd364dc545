// Rules for credentials and environment entries.
#include <algorithm>
#include <array>
#include <limits>

#include "base/text.hpp"
#include "storage/validate.hpp"
#include "storage/validate_support.hpp"

namespace mcpgw::detail {
namespace {

Status validate_secret(std::string_view value, std::size_t max_bytes, bool process_target,
                       std::string_view field, std::string_view reason) {
  if (value.empty()) return invalid(field, "The value must not be empty", reason);
  if (value.size() > max_bytes)
    return invalid(field, "The value must have at most " + std::to_string(max_bytes) + " bytes", reason);
  if (!is_utf8(value)) return invalid(field, "The value must be valid UTF-8", reason);
  // Values of HTTP targets become header values.
  if (has_control(value, process_target ? "\t\n" : ""))
    return invalid(field,
                   process_target ? "The value must not contain control characters other than tab and newline"
                                  : "The value must not contain line breaks or other control characters",
                   reason);
  return {};
}

}  // namespace

Status validate_scope(ScopeRef& scope) {
  switch (scope.scope) {
    case Scope::everyone:
      if (!scope.value.empty()) return invalid("scope_value", "The default scope has no value");
      return {};
    case Scope::role:
      return validate_role(scope.value, "role");
    case Scope::group:
      return validate_group(scope.value, "group");
    case Scope::user:
      break;
  }
  if (!is_uuid(scope.value))
    return Error(ErrorCode::not_found, "user_not_found", "There is no user with this id", "user_id");
  return {};
}

Status validate_target_token(std::string_view token, bool process_target) {
  return validate_secret(token, 16384, process_target, "token", "invalid_request");
}

bool is_env_key(std::string_view key) noexcept {
  return !key.empty() && key.size() <= 128 && !is_digit(key.front()) &&
         std::all_of(key.begin(), key.end(), [](char c) { return is_alnum(c) || c == '_'; });
}

bool is_protected_env_key(std::string_view key) noexcept {
  constexpr std::array<std::string_view, 9> names{"PATH",      "HOME",   "SHELL",      "IFS",    "ENV",
                                                  "CLASSPATH", "TMPDIR", "GCONV_PATH", "LOCPATH"};
  constexpr std::array<std::string_view, 24> prefixes{
      "BASH_", "LD_",  "DYLD_", "NODE_",   "NPM_",  "PYTHON", "PIP_",     "UV_",
      "PERL",  "RUBY", "GEM_",  "BUNDLE_", "JAVA_", "JDK_",   "_JAVA_",   "DOTNET_",
      "DENO_", "BUN_", "YARN_", "GIT_",    "SSH_",  "SSL_",   "OPENSSL_", "XDG_"};
  for (const auto name : names)
    if (iequals(key, name)) return true;
  for (const auto prefix : prefixes)
    if (starts_with_icase(key, prefix)) return true;
  const auto ends_with = [&](std::string_view suffix) {
    return key.size() >= suffix.size() && iequals(key.substr(key.size() - suffix.size()), suffix);
  };
  if (ends_with("_PROXY")) return true;
  return starts_with_icase(key, "GO") && key.size() >= 7 && ends_with("PROXY");
}

Status validate_env(std::string_view key, std::string_view value, bool process_target,
                    std::int64_t max_timeout_ms) {
  if (!is_env_key(key))
    return invalid("key", "A key is 1 to 128 letters, digits and '_', and does not start with a digit",
                   "invalid_key");
  if (auto status = validate_secret(value, 32768, process_target, "value", "invalid_value"); !status)
    return status;
  if (process_target) return {};  // the reserved keys mean nothing to a process
  if (key == "BASE_URL" && !parse_target_url(value))
    return invalid("value", "BASE_URL must be an absolute http or https URL", "invalid_value");
  if (key == "AUTH_HEADER" && (!is_header_name(value) || is_forbidden_header(value)))
    return invalid("value", "AUTH_HEADER must be the name of a header that may carry a credential",
                   "invalid_value");
  if (key == "TIMEOUT") {
    const auto duration = parse_go_duration(value);
    if (!duration || *duration < std::chrono::seconds(1) ||
        *duration > std::chrono::milliseconds(max_timeout_ms))
      return invalid(
          "value",
          "TIMEOUT must be a duration such as 30s, from 1s to " + std::to_string(max_timeout_ms) + "ms",
          "invalid_value");
  }
  return {};
}

std::optional<Duration> parse_go_duration(std::string_view text) {
  bool negative = false;
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) {
    negative = text.front() == '-';
    text.remove_prefix(1);
  }
  if (text == "0") return Duration(0);
  if (text.empty()) return std::nullopt;
  struct Unit {
    std::string_view name;
    std::uint64_t nanoseconds;
  };
  constexpr std::array<Unit, 8> units{{{"ns", 1},
                                       {"us", 1000},
                                       {"\xc2\xb5s", 1000},
                                       {"\xce\xbcs", 1000},
                                       {"ms", 1000000},
                                       {"s", 1000000000},
                                       {"m", 60000000000},
                                       {"h", 3600000000000}}};
  constexpr std::uint64_t max = std::numeric_limits<std::int64_t>::max();
  std::uint64_t total = 0;
  while (!text.empty()) {
    std::uint64_t whole = 0;
    std::size_t at = 0;
    for (; at < text.size() && is_digit(text[at]); ++at) {
      const auto digit = static_cast<std::uint64_t>(text[at] - '0');
      if (whole > (max - digit) / 10) return std::nullopt;
      whole = whole * 10 + digit;
    }
    std::size_t number_length = at;
    std::string_view fraction;
    if (at < text.size() && text[at] == '.') {
      const std::size_t from = ++at;
      while (at < text.size() && is_digit(text[at])) ++at;
      fraction = text.substr(from, at - from);
      number_length += fraction.size();
    }
    if (number_length == 0) return std::nullopt;
    std::size_t end = at;
    while (end < text.size() && text[end] != '.' && !is_digit(text[end])) ++end;
    const std::string_view name = text.substr(at, end - at);
    const auto unit = std::find_if(units.begin(), units.end(), [&](const Unit& u) { return u.name == name; });
    if (unit == units.end()) return std::nullopt;
    if (whole > (max - total) / unit->nanoseconds) return std::nullopt;
    total += whole * unit->nanoseconds;
    // Digits of the fraction below a nanosecond cannot count.
    std::uint64_t scale = unit->nanoseconds;
    for (char digit : fraction) {
      scale /= 10;
      if (scale == 0) break;
      const std::uint64_t add = static_cast<std::uint64_t>(digit - '0') * scale;
      if (add > max - total) return std::nullopt;
      total += add;
    }
    text.remove_prefix(end);
  }
  const auto micros = static_cast<std::int64_t>(total / 1000);
  return Duration(negative ? -micros : micros);
}

}  // namespace mcpgw::detail
