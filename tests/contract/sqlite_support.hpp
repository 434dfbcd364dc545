// Opens a database for a test.
#pragma once

#include <doctest/doctest.h>

#include <string>

#include "contract/temp_dir.hpp"
#include "mcpgw/sqlite.hpp"

namespace mcpgw::contract {

inline SqliteStorage open_database(const std::string& path, int busy_timeout_ms = 5000) {
  auto opened = open_sqlite({path, busy_timeout_ms});
  if (!opened) FAIL("cannot open: " << opened.error().reason);
  return *opened;
}

}  // namespace mcpgw::contract
