#include "config_values.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <set>

namespace mcpgw::app {

namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  return out;
}

std::optional<double> unit_in_nanoseconds(std::string_view unit) {
  if (unit == "ns") return 1;
  if (unit == "us" || unit == "\xC2\xB5s" || unit == "\xCE\xBCs") return 1e3;
  if (unit == "ms") return 1e6;
  if (unit == "s") return 1e9;
  if (unit == "m") return 60e9;
  if (unit == "h") return 3600e9;
  return std::nullopt;
}

std::optional<std::string> from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  std::string out;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data() + i, text.data() + i + 2, value, 16);
    if (error != std::errc() || end != text.data() + i + 2) return std::nullopt;
    out += static_cast<char>(value);
  }
  return out;
}

std::optional<std::string> from_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  const std::size_t padding = text.size() - std::min(text.size(), text.find_last_not_of('=') + 1);
  if (padding > 2) return std::nullopt;
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text.substr(0, text.size() - padding)) {
    static constexpr std::string_view kAlphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const auto at = kAlphabet.find(c);
    if (at == std::string_view::npos) return std::nullopt;
    bits = (bits << 6) | static_cast<std::uint32_t>(at);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += static_cast<char>((bits >> count) & 0xff);
    }
  }
  if (bits & ((1u << count) - 1)) return std::nullopt;  // not canonical
  return out;
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    const auto byte = from_hex(text.substr(i + 1, 2));
    if (!byte || byte->size() != 1 || (*byte)[0] == '\0') return std::nullopt;
    out += *byte;
    i += 2;
  }
  return out;
}

std::size_t different_characters(std::string_view text) {
  return std::set<char>(text.begin(), text.end()).size();
}

/// A piece of ...123456789012345..., wherever it begins.
bool counts_to_ten(std::string_view text) {
  std::string digits;
  while (digits.size() < text.size() + 10) digits += "1234567890";
  return digits.find(text) != std::string::npos;
}

}  // namespace

std::optional<std::chrono::nanoseconds> parse_duration(std::string_view text) {
  if (text == "0") return std::chrono::nanoseconds(0);
  if (text.empty()) return std::nullopt;
  double total = 0;
  while (!text.empty()) {
    std::size_t digits = 0, dots = 0;
    while (digits < text.size() && (is_digit(text[digits]) || text[digits] == '.'))
      dots += text[digits++] == '.';
    if (digits == dots || dots > 1) return std::nullopt;
    double number = 0;
    const auto [end, error] =
        std::from_chars(text.data(), text.data() + digits, number, std::chars_format::fixed);
    if (error != std::errc() || end != text.data() + digits) return std::nullopt;
    text.remove_prefix(digits);
    std::size_t letters = 0;
    while (letters < text.size() && !is_digit(text[letters]) && text[letters] != '.') ++letters;
    const auto unit = unit_in_nanoseconds(text.substr(0, letters));
    if (!unit) return std::nullopt;
    text.remove_prefix(letters);
    total += number * *unit;
    if (total > 9e18) return std::nullopt;
  }
  return std::chrono::nanoseconds(static_cast<std::int64_t>(total + 0.5));
}

std::optional<std::int64_t> parse_integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  std::size_t digits = 0;
  while (digits < text.size() && is_digit(text[digits])) ++digits;
  const auto number = parse_integer(text.substr(0, digits));
  if (!number) return std::nullopt;
  auto unit = text.substr(digits);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  int shift = 0;
  if (unit == "KiB")
    shift = 10;
  else if (unit == "MiB")
    shift = 20;
  else if (unit == "GiB")
    shift = 30;
  else if (!unit.empty() || digits != text.size())
    return std::nullopt;
  const auto value = static_cast<std::uint64_t>(*number);
  if (value > (std::numeric_limits<std::uint64_t>::max() >> 1 >> shift)) return std::nullopt;
  return value << shift;
}

Expanded expand_variables(std::string_view text, const std::map<std::string, std::string>& environment) {
  Expanded out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '$' || i + 1 == text.size()) {
      out.text += text[i];
      continue;
    }
    if (text[i + 1] == '$') {
      out.text += '$';
      ++i;
      continue;
    }
    if (text[i + 1] != '{') {
      out.text += '$';
      continue;
    }
    const auto end = text.find('}', i);
    if (end == std::string_view::npos) {
      out.error = "has a \"${\" without \"}\" (write \"$$\" for a dollar sign)";
      return out;
    }
    const auto inside = text.substr(i + 2, end - i - 2);
    const auto mark = inside.find(":-");
    const std::string name(inside.substr(0, mark));
    const bool valid =
        !name.empty() && !is_digit(name[0]) &&
        std::all_of(name.begin(), name.end(), [](char c) { return is_alpha(c) || is_digit(c) || c == '_'; });
    if (!valid) {
      out.error = "has a \"${...}\" that is neither ${NAME} nor ${NAME:-default}";
      return out;
    }
    const auto found = environment.find(name);
    if (found != environment.end() && (!found->second.empty() || mark == std::string_view::npos)) {
      out.text += found->second;
    } else if (mark != std::string_view::npos) {
      out.text += inside.substr(mark + 2);
    } else {
      out.error = "refers to the environment variable " + name + ", which is not set";
      return out;
    }
    i = end;
  }
  return out;
}

std::string secret_fault(std::string_view secret) {
  if (secret.substr(0, 2) == "${") return "is a variable that was not replaced";
  const auto text = lower(secret);
  for (const char* word :
       {"change-me", "changeme", "change-in-production", "your-super-secret", "placeholder"})
    if (text.find(word) != std::string::npos)
      return "is a placeholder; set a random value, such as that of: openssl rand -hex 32";
  if (counts_to_ten(secret))
    return "is a placeholder (1234567890...); set a random value, such as that of: openssl rand -hex 32";
  if (secret.size() < 32) return "must be at least 32 bytes long";
  if (different_characters(secret) < 8) return "must have at least 8 different characters";
  return {};
}

std::optional<std::string> decode_base64(std::string_view text) { return from_base64(text); }

std::optional<std::string> decode_key(std::string_view text) {
  if (text.size() == 32) return std::string(text);
  auto bytes = text.size() == 64 ? from_hex(text) : text.size() == 44 ? from_base64(text) : std::nullopt;
  if (bytes && bytes->size() != 32) return std::nullopt;
  return bytes;
}

namespace {

/// What may follow the "?" besides sslmode; libpq knows more, but nothing that a service should be given
/// there.
bool is_postgres_parameter(std::string_view name) {
  static constexpr std::string_view kNames[] = {"application_name",
                                                "channel_binding",
                                                "gssencmode",
                                                "host",
                                                "keepalives_count",
                                                "keepalives_idle",
                                                "keepalives_interval",
                                                "options",
                                                "sslcert",
                                                "sslcrl",
                                                "sslkey",
                                                "sslpassword",
                                                "sslrootcert",
                                                "ssl_min_protocol_version",
                                                "target_session_attrs",
                                                "tcp_user_timeout"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

/// "a=b&c=d". False: malformed, or a name that is not known.
bool read_parameters(std::string_view query, DatabaseConfig& database) {
  while (!query.empty()) {
    const auto part = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), part.size() + 1));
    const auto equals = part.find('=');
    if (equals == std::string_view::npos) return false;
    const std::string name(part.substr(0, equals));
    const auto value = percent_decode(part.substr(equals + 1));
    if (!value || value->empty()) return false;
    if (name == "sslmode")
      database.sslmode = *value;
    else if (name == "host")  // a directory of sockets does not fit before the path
      database.host = *value;
    else if (is_postgres_parameter(name))
      database.parameters[name] = *value;
    else
      return false;
  }
  return true;
}

}  // namespace

ParsedDatabase parse_database_url(std::string_view url) {
  ParsedDatabase out;
  static constexpr const char* kForms =
      "must be sqlite://<path> or postgres://user:password@host:port/name?sslmode=...";
  if (url.substr(0, 9) == "sqlite://") {
    out.database.path = url.substr(9);
    if (out.database.path.empty()) out.error = kForms;
    return out;
  }
  auto rest = url;
  if (url.substr(0, 11) == "postgres://")
    rest.remove_prefix(11);
  else if (url.substr(0, 13) == "postgresql://")
    rest.remove_prefix(13);
  else {
    out.error = kForms;
    return out;
  }
  auto& db = out.database;
  db.kind = DatabaseConfig::Kind::postgres;
  out.error = kForms;               // until all of it has been read
  const auto at = rest.rfind('@');  // so that a password may hold one
  if (at != std::string_view::npos) {
    const auto colon = rest.substr(0, at).find(':');
    const auto user = percent_decode(rest.substr(0, std::min(at, colon)));
    const auto password =
        percent_decode(colon == std::string_view::npos ? "" : rest.substr(colon + 1, at - colon - 1));
    if (!user || !password) return out;
    db.user = *user;
    db.password = *password;
    rest.remove_prefix(at + 1);
  }
  const auto slash = rest.find('/');
  if (slash == std::string_view::npos) return out;
  auto host = rest.substr(0, slash);
  auto name = rest.substr(slash + 1);
  const auto colon = host.rfind(':');
  if (colon != std::string_view::npos && host.find(']', colon) == std::string_view::npos) {
    const auto port = parse_integer(host.substr(colon + 1));
    if (!port || *port < 1 || *port > 65535) return out;
    db.port = static_cast<int>(*port);
    host = host.substr(0, colon);
  }
  const auto query = name.find('?');
  if (query != std::string_view::npos) {
    if (!read_parameters(name.substr(query + 1), db)) return out;
    name = name.substr(0, query);
  }
  const auto database = percent_decode(name), decoded_host = percent_decode(host);
  if (!database || database->empty() || !decoded_host || (decoded_host->empty() == db.host.empty()))
    return out;
  db.database = *database;
  if (!decoded_host->empty()) db.host = *decoded_host;
  out.error.clear();
  return out;
}

std::optional<std::pair<std::string, LogLevel>> parse_module_level(std::string_view text) {
  static constexpr std::string_view kModules[] = {"access", "audit",   "gateway",   "http",
                                                  "server", "storage", "telemetry", "upstream"};
  static constexpr std::pair<std::string_view, LogLevel> kLevels[] = {
      {"trace", LogLevel::trace}, {"debug", LogLevel::debug}, {"info", LogLevel::info},
      {"warn", LogLevel::warn},   {"error", LogLevel::error}, {"off", LogLevel::off}};
  const auto equals = text.find('=');
  if (equals == std::string_view::npos) return std::nullopt;
  const std::string_view module = text.substr(0, equals);
  if (std::find(std::begin(kModules), std::end(kModules), module) == std::end(kModules)) return std::nullopt;
  for (const auto& [name, level] : kLevels)
    if (name == text.substr(equals + 1)) return std::pair(std::string(module), level);
  return std::nullopt;
}

bool is_origin_pattern(std::string_view text) {
  if (text == "*") return true;
  const auto scheme = text.find("://");
  if (scheme == std::string_view::npos || scheme == 0) return false;
  const auto rest = text.substr(scheme + 3);
  if (std::count(text.begin(), text.end(), '*') > 1 ||
      text.substr(0, scheme).find('*') != std::string_view::npos)
    return false;
  return !rest.empty() && rest != "*" && rest.find_first_of("/?#@ \t\r\n,") == std::string_view::npos;
}

bool is_network(std::string_view text) {
  const auto slash = text.find('/');
  const std::string address(text.substr(0, slash));
  unsigned char bytes[16];
  int bits = 0;
  if (inet_pton(AF_INET, address.c_str(), bytes) == 1)
    bits = 32;
  else if (inet_pton(AF_INET6, address.c_str(), bytes) == 1)
    bits = 128;
  else
    return false;
  if (slash == std::string_view::npos) return true;
  const auto length = parse_integer(text.substr(slash + 1));
  return length && *length >= 0 && *length <= bits;
}

}  // namespace mcpgw::app
