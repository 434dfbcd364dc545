#include "log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>

#include "cli.hpp"
#include "config_values.hpp"

namespace mcpgw::app {

namespace {

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::trace:
      return "trace";
    case LogLevel::debug:
      return "debug";
    case LogLevel::info:
      return "info";
    case LogLevel::warn:
      return "warn";
    case LogLevel::error:
      return "error";
    case LogLevel::off:
      break;
  }
  return "off";
}

std::string now_text() {
  return time_text(std::chrono::time_point_cast<std::chrono::microseconds>(std::chrono::system_clock::now()));
}

/// The length of the UTF-8 character that begins at `at`; 0: none does.
std::size_t character_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xc2 && first < 0xe0   ? 2
                             : first >= 0xe0 && first < 0xf0 ? 3
                             : first >= 0xf0 && first < 0xf5 ? 4
                                                             : 0;
  if (length == 0 || at + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(at + i) & 0xc0) != 0x80) return 0;
  const unsigned char second = byte(at + 1);
  // Overlong forms, surrogates and what is beyond U+10FFFF.
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
      (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f))
    return 0;
  return length;
}

void append_quoted(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    const auto byte = static_cast<unsigned char>(c);
    if (const std::size_t length = character_at(text, at); length > 1) {
      out.append(text.substr(at, length));
      at += length;
      continue;
    } else if (length == 0) {
      out += "\xef\xbf\xbd";  // U+FFFD
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
    ++at;
  }
  out += '"';
}

std::string json_line(const LogEvent& event) {
  std::string line;
  line.reserve(384);
  const auto add = [&](std::string_view name, std::string_view value) {
    line += line.empty() ? '{' : ',';
    append_quoted(line, name);
    line += ':';
    append_quoted(line, value);
  };
  add("time", now_text());
  add("level", level_name(event.level));
  add("module", event.module);
  add("message", event.message);
  const auto& fields = event.fields;
  for (auto field = fields.begin(); field != fields.end(); ++field) {
    const std::string& name = field->first;
    // One member a name: the first counts.
    if (name == "time" || name == "level" || name == "module" || name == "message" ||
        std::any_of(fields.begin(), field, [&](const auto& before) { return before.first == name; }))
      continue;
    add(name, field->second);
  }
  return line += '}';
}

/// One line whatever the text holds.
std::string printable(const std::string& text) {
  std::string out;
  for (const char c : text) out += static_cast<unsigned char>(c) < ' ' || c == 0x7f ? ' ' : c;
  return out;
}

std::string console_line(const LogEvent& event) {
  std::string line =
      now_text() + " " + level_name(event.level) + " " + event.module + ": " + printable(event.message);
  for (const auto& [name, value] : event.fields) line += "  " + name + "=" + printable(value);
  return line;
}

}  // namespace

class Log::Output {
 public:
  Output() : logger_("mcpgw", std::make_shared<spdlog::sinks::stderr_sink_mt>()) {
    logger_.set_pattern("%v");
    logger_.set_level(spdlog::level::trace);
  }
  void line(const std::string& text) { logger_.info(spdlog::string_view_t(text)); }
  void flush() { logger_.flush(); }

 private:
  spdlog::logger logger_;
};

/// Put together once: whoever writes only reads it.
struct Log::Levels {
  LogLevel level;
  std::vector<std::pair<std::string, LogLevel>> modules;
};

Log::Log(const LogConfig& config) : output_(std::make_shared<Output>()), json_(config.json) {
  set_levels(config);
}

void Log::set_levels(const LogConfig& config) {
  auto levels = std::make_shared<Levels>();
  levels->level = config.level;
  for (const std::string& entry : config.levels)
    if (auto one = parse_module_level(entry)) levels->modules.push_back(std::move(*one));
  levels_.store(std::move(levels));
}

bool Log::keeps(LogLevel level, std::string_view module) const {
  if (level == LogLevel::off) return false;
  const auto levels = levels_.load();
  for (const auto& [name, own] : levels->modules)
    if (name == module) return level >= own;
  return level >= levels->level;
}

void Log::write(const LogEvent& event) {
  if (keeps(event.level, event.module)) output_->line(json_ ? json_line(event) : console_line(event));
}

void Log::info(std::string message, std::vector<std::pair<std::string, std::string>> fields) {
  write({LogLevel::info, "server", std::move(message), std::move(fields)});
}

void Log::error(std::string message, std::vector<std::pair<std::string, std::string>> fields) {
  write({LogLevel::error, "server", std::move(message), std::move(fields)});
}

void Log::flush() { output_->flush(); }

}  // namespace mcpgw::app
