// Where log lines go: stderr, one JSON object a line or a line for people.
#pragma once

#include <atomic>
#include <memory>

#include "config.hpp"

namespace mcpgw::app {

class Log {
 public:
  explicit Log(const LogConfig& config);
  /// Its levels take effect with the next line; the format stays.
  void set_levels(const LogConfig& config);
  /// Whether a line of that level and module is kept. Safe from any thread.
  bool keeps(LogLevel level, std::string_view module) const;
  /// Safe from any thread; for the library too.
  void write(const LogEvent& event);
  void info(std::string message, std::vector<std::pair<std::string, std::string>> fields = {});
  void error(std::string message, std::vector<std::pair<std::string, std::string>> fields = {});
  /// All lines that were written have left when it returns.
  void flush();

 private:
  class Output;
  const std::shared_ptr<Output> output_;
  const bool json_;
  struct Levels;
  std::atomic<std::shared_ptr<const Levels>> levels_;
};

}  // namespace mcpgw::app
