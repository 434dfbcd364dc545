// In place of the document, when the build leaves it out.
#include "docs/docs_data.hpp"

namespace mcpgw::detail {

const DocsData* docs_data() noexcept { return nullptr; }

}  // namespace mcpgw::detail
