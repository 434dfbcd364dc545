#include "docs/api_docs.hpp"

#include <algorithm>

#include "base/accept_encoding.hpp"
#include "base/text.hpp"
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

constexpr std::size_t kVersionLength = 16;

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

/// Whether an If-None-Match names `tag`; compared weakly (RFC 9110 13.1.2).
bool names(std::string_view header, std::string_view tag) {
  if (trim(header) == "*") return true;
  for (const std::string& element : split(header, ',')) {
    std::string_view one = trim(element);
    if (one.starts_with("W/")) one.remove_prefix(2);
    if (one == tag) return true;
  }
  return false;
}

}  // namespace

ApiDocs::ApiDocs(bool enabled, std::string_view script, std::string_view script_gzip) {
  const DocsData* data = docs_data();
  if (!enabled || data == nullptr) return;
  const auto text = [this](const char* path, const char* type, const DocsText& bytes) {
    add(path, type, bytes.plain, bytes.gzip);
  };
  text("/docs/openapi.yaml", "application/yaml", data->yaml);
  text("/docs/openapi.json", "application/json", data->json);
  constexpr const char* kHtml = "text/html; charset=utf-8";
  if (script.empty()) {
    text("/docs", kHtml, data->page);
    text("/docs/docs.css", "text/css; charset=utf-8", data->css);
    return;
  }
  text("/docs/docs.js", "text/javascript; charset=utf-8", data->js);
  add("/docs/scalar.js", "text/javascript; charset=utf-8", script, script_gzip);
  page_ = scalar_page(find("/docs/scalar.js")->version, find("/docs/docs.js")->version);
  add("/docs", kHtml, page_, {});
}

void ApiDocs::add(std::string path, std::string type, std::string_view plain, std::string_view gzip) {
  files_.push_back(
      {std::move(path), std::move(type), plain, gzip, to_hex(sha256(plain)).substr(0, kVersionLength)});
}

const ApiDocs::File* ApiDocs::find(std::string_view path) const noexcept {
  const auto found =
      std::find_if(files_.begin(), files_.end(), [&](const File& file) { return file.path == path; });
  return found == files_.end() ? nullptr : &*found;
}

HttpResponse ApiDocs::answer(const HttpRequest& request) const {
  HttpResponse response;
  const File* file = find(request.path());
  if (file == nullptr) {
    response.status = 404;
    return response;
  }
  const bool compressed = !file->gzip.empty() && accepts_gzip(request.headers);
  // A tag for each encoding: a strong one promises the same bytes.
  const std::string tag = "\"" + file->version + (compressed ? "-gzip\"" : "\"");
  // Who asks with the version of the bytes may keep them for ever; everybody else asks again, and gets 304.
  const bool pinned = query_value(request.query(), "v") == file->version;
  response.headers = {{"Cache-Control", pinned ? "public, max-age=31536000, immutable" : "no-cache"},
                      {"ETag", tag}};
  if (!file->gzip.empty()) response.headers.emplace_back("Vary", "Accept-Encoding");
  const std::string* known = request.header("If-None-Match");
  if (known != nullptr && names(*known, tag)) {
    response.status = 304;
    return response;
  }
  response.headers.emplace_back("Content-Type", file->type);
  if (compressed) response.headers.emplace_back("Content-Encoding", "gzip");
  if (file->type.starts_with("text/html")) {
    response.headers.emplace_back("Content-Security-Policy", page_.empty() ? kPlainPolicy : kScalarPolicy);
    response.headers.emplace_back("Referrer-Policy", "no-referrer");
  }
  response.body = compressed ? file->gzip : file->plain;
  return response;
}

}  // namespace mcpgw::detail
