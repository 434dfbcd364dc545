// The web console inside the program (console_ui.cmake).
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "mcpgw/gateway.hpp"

namespace mcpgw::app {

/// A file of the console as it was built; it lives as long as the program.
struct EmbeddedFile {
  std::string_view name;  ///< "index.html", "assets/index-1a2b.js"
  std::string_view bytes;
  std::string_view gzip;
};
/// Empty in a build without the console.
std::span<const EmbeddedFile> console_files() noexcept;

/// What the gateway serves of the console: the page at / and what it loads. In a build without it / says how
/// to get it.
std::vector<WebFile> console_ui();

}  // namespace mcpgw::app
