// The Scalar API reference inside the program (docs_ui.cmake).
#pragma once

#include <string_view>

namespace mcpgw::app {

/// Scalar's browser bundle and the same gzip'd; empty in a build without it. They live as long as the
/// program.
struct DocsUi {
  std::string_view script;
  std::string_view script_gzip;
};
DocsUi docs_ui() noexcept;

}  // namespace mcpgw::app
