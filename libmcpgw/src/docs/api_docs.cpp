#include "docs/api_docs.hpp"

#include "docs/docs_data.hpp"

namespace mcpgw::detail {
namespace {

// Scalar puts its styles into the page as it runs, so styles may be inline; scripts may not. Connections go
// to the gateway itself only: "try it" works, and a token that was entered cannot leave.
constexpr std::string_view kScalarPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
constexpr std::string_view kPlainPolicy =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Links are relative, so that the page works behind a proxy that puts the gateway below a path.
std::string scalar_page(const std::string& script, const std::string& start) {
  return R"(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mcpgw API</title>
<link rel="icon" href="data:,">
</head>
<body>
<div id="app"></div>
<noscript><p>This page needs JavaScript. The document itself does not:
<a href="docs/openapi.yaml">openapi.yaml</a>, <a href="docs/openapi.json">openapi.json</a>.</p></noscript>
<script src="docs/scalar.js?v=)" +
         script + R"("></script>
<script src="docs/docs.js?v=)" +
         start + R"("></script>
</body>
</html>
)";
}

}  // namespace

ApiDocs::ApiDocs(bool enabled, std::string_view script, std::string_view script_gzip) {
  const DocsData* data = docs_data();
  if (!enabled || data == nullptr) return;
  constexpr const char* kHtml = "text/html; charset=utf-8";
  constexpr const char* kJs = "text/javascript; charset=utf-8";
  const auto text = [this](const char* path, const char* type, const DocsText& bytes) {
    files_.add({path, type, bytes.plain, bytes.gzip, false, {}});
  };
  const auto page = [this](const DocsText& bytes, std::string_view policy) {
    files_.add({"/docs",
                kHtml,
                bytes.plain,
                bytes.gzip,
                false,
                {{"Content-Security-Policy", std::string(policy)}, {"Referrer-Policy", "no-referrer"}}});
  };
  text("/docs/openapi.yaml", "application/yaml", data->yaml);
  text("/docs/openapi.json", "application/json", data->json);
  if (script.empty()) {
    page(data->page, kPlainPolicy);
    text("/docs/docs.css", "text/css; charset=utf-8", data->css);
    return;
  }
  text("/docs/docs.js", kJs, data->js);
  text("/docs/scalar.js", kJs, {script, script_gzip});
  page_ = scalar_page(files_.version("/docs/scalar.js"), files_.version("/docs/docs.js"));
  page({page_, {}}, kScalarPolicy);
}

}  // namespace mcpgw::detail
