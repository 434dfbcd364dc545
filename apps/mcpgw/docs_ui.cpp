#include "docs_ui.hpp"

#include <cstddef>

#ifdef MCPGW_HAVE_DOCS_UI
extern "C" {
extern const char mcpgw_docs_script[], mcpgw_docs_script_end[];
extern const char mcpgw_docs_script_gzip[], mcpgw_docs_script_gzip_end[];
}
#endif

namespace mcpgw::app {

DocsUi docs_ui() noexcept {
#ifdef MCPGW_HAVE_DOCS_UI
  return {{mcpgw_docs_script, static_cast<std::size_t>(mcpgw_docs_script_end - mcpgw_docs_script)},
          {mcpgw_docs_script_gzip,
           static_cast<std::size_t>(mcpgw_docs_script_gzip_end - mcpgw_docs_script_gzip)}};
#else
  return {};
#endif
}

}  // namespace mcpgw::app
