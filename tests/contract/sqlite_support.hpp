// A database file in a directory of its own, removed with it.
#pragma once

#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "mcpgw/sqlite.hpp"

namespace mcpgw::contract {

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "mcpgw-test-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline SqliteStorage open_database(const std::string& path, int busy_timeout_ms = 5000) {
  auto opened = open_sqlite({path, busy_timeout_ms});
  if (!opened) FAIL("cannot open: " << opened.error().reason);
  return *opened;
}

}  // namespace mcpgw::contract
