// The table of configuration keys: what each accepts and where its value goes.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "config.hpp"

namespace mcpgw::app {

/// A value as it was written, after expansion of variables.
struct RawValue {
  bool is_list = false;
  std::string text;
  std::vector<std::string> list;
};

struct ConfigKey {
  std::string name;
  bool is_list = false;
  /// Puts the value into the configuration. Returns what is wrong with it, without the value; empty: good.
  std::function<std::string(Config&, const RawValue&)> set;
};

const std::vector<ConfigKey>& config_key_table();

}  // namespace mcpgw::app
