#include "console_ui.hpp"

namespace mcpgw::app {
namespace {

HttpHeaders page_headers(std::string_view policy) {
  return {{"Content-Security-Policy", std::string(policy)},
          {"Referrer-Policy", "no-referrer"},
          {"Cross-Origin-Opener-Policy", "same-origin"},
          {"X-Frame-Options", "DENY"}};
}

#ifndef MCPGW_HAVE_CONSOLE
constexpr std::string_view kNoConsole = R"(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mcpgw</title>
<link rel="icon" href="data:,">
</head>
<body>
<h1>mcpgw is running</h1>
<p>This build has no web console. To get it, run <code>npm ci --ignore-scripts</code> in <code>apps/console</code>
(Node.js 18 or newer), then configure and build the program again.</p>
<p>MCP clients connect to <code>/mcp</code>. The REST API is described at <a href="docs">/docs</a>.</p>
</body>
</html>
)";
constexpr std::string_view kPlainPolicy =
    "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
#else
// Scripts and styles are files of ours, no text becomes markup (trusted types), and nothing goes to another
// host: a token that the page holds cannot leave.
constexpr std::string_view kConsolePolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'";

std::string_view content_type(std::string_view name) {
  const auto dot = name.rfind('.');
  const std::string_view ending = dot == std::string_view::npos ? std::string_view() : name.substr(dot);
  if (ending == ".html") return "text/html; charset=utf-8";
  if (ending == ".js") return "text/javascript; charset=utf-8";
  if (ending == ".css") return "text/css; charset=utf-8";
  if (ending == ".svg") return "image/svg+xml";
  return "application/octet-stream";
}
#endif

}  // namespace

#ifdef MCPGW_HAVE_CONSOLE
std::vector<WebFile> console_ui() {
  std::vector<WebFile> out;
  for (const EmbeddedFile& file : console_files()) {
    const bool page = file.name == "index.html";
    WebFile one;
    one.path = page ? "/" : "/" + std::string(file.name);
    one.content_type = content_type(file.name);
    one.bytes = file.bytes;
    one.gzip = file.gzip;
    one.immutable = file.name.starts_with("assets/");  // their names hold digests of their bytes
    if (page) one.headers = page_headers(kConsolePolicy);
    out.push_back(std::move(one));
  }
  return out;
}
#else
std::span<const EmbeddedFile> console_files() noexcept { return {}; }

std::vector<WebFile> console_ui() {
  return {{"/", "text/html; charset=utf-8", kNoConsole, {}, false, page_headers(kPlainPolicy)}};
}
#endif

}  // namespace mcpgw::app
