#include "log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "cli.hpp"

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

std::string json_line(const LogEvent& event) {
  Json line = {{"time", now_text()},
               {"level", level_name(event.level)},
               {"module", event.module},
               {"message", event.message}};
  for (const auto& [name, value] : event.fields)
    if (!line.contains(name)) line[name] = value;
  return line.dump(-1, ' ', false, Json::error_handler_t::replace);
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

Log::Log(const LogConfig& config)
    : output_(std::make_shared<Output>()), json_(config.json), level_(config.level) {}

void Log::write(const LogEvent& event) {
  if (event.level < level_.load() || event.level == LogLevel::off) return;
  output_->line(json_ ? json_line(event) : console_line(event));
}

void Log::info(std::string message, std::vector<std::pair<std::string, std::string>> fields) {
  write({LogLevel::info, "server", std::move(message), std::move(fields)});
}

void Log::error(std::string message, std::vector<std::pair<std::string, std::string>> fields) {
  write({LogLevel::error, "server", std::move(message), std::move(fields)});
}

void Log::flush() { output_->flush(); }

}  // namespace mcpgw::app
