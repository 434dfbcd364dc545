// What /docs serves, as the build made it of docs/openapi.yaml (embed_docs.cpp).
#pragma once

#include <string_view>

namespace mcpgw::detail {

struct DocsText {
  std::string_view plain;
  std::string_view gzip;
};

struct DocsData {
  DocsText yaml;
  DocsText json;
  DocsText page;  ///< the operations as HTML, without scripts
  DocsText css;   ///< of that page
  DocsText js;    ///< starts the Scalar API reference
};

/// Null in a build without the document (MCPGW_WITH_DOCS=OFF).
const DocsData* docs_data() noexcept;

}  // namespace mcpgw::detail
