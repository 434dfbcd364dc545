// Files in memory over HTTP: encodings, tags, how long they are kept, and headers of their own.
#include "docs/web_files.hpp"

#include <doctest/doctest.h>

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {

const std::string kPage = "<!doctype html><title>x</title>";
const std::string kPacked = "\x1f\x8b (page)";
const std::string kScript = "export {}";

WebFiles files() {
  return WebFiles(
      {{"/", "text/html", kPage, kPacked, false, {{"Content-Security-Policy", "default-src 'none'"}}},
       {"/assets/app-1a2b.js", "text/javascript", kScript, {}, true, {}}});
}

HttpResponse get(const std::string& target, HttpHeaders headers = {}) {
  HttpRequest request;
  request.method = "GET";
  request.target = target;
  request.headers = std::move(headers);
  return files().answer(request);
}

std::string header(const HttpResponse& response, const char* name) {
  const std::string* value = response.header(name);
  return value == nullptr ? "" : *value;
}

}  // namespace

TEST_CASE("a page is asked for each time and not sent again when it is known") {
  const auto plain = get("/");
  CHECK(plain.status == 200);
  CHECK(plain.body == kPage);
  CHECK(header(plain, "Content-Type") == "text/html");
  CHECK(header(plain, "Content-Security-Policy") == "default-src 'none'");
  CHECK(header(plain, "Cache-Control") == "no-cache");
  CHECK(header(plain, "Vary") == "Accept-Encoding");
  CHECK(header(plain, "Content-Encoding").empty());
  const auto packed = get("/?x=1", {{"Accept-Encoding", "br, gzip"}});
  CHECK(packed.body == kPacked);
  CHECK(header(packed, "Content-Encoding") == "gzip");
  CHECK(header(packed, "ETag") != header(plain, "ETag"));
  for (const std::string& known :
       {header(plain, "ETag"), "\"other\", W/" + header(plain, "ETag"), std::string("*")}) {
    const auto again = get("/", {{"If-None-Match", known}});
    CHECK(again.status == 304);
    CHECK(again.body.empty());
    CHECK(header(again, "ETag") == header(plain, "ETag"));
  }
  CHECK(get("/", {{"If-None-Match", header(packed, "ETag")}}).status == 200);
}

TEST_CASE("what has a name of its own for each content is kept for a year") {
  const auto script = get("/assets/app-1a2b.js", {{"Accept-Encoding", "gzip"}});
  CHECK(script.status == 200);
  CHECK(script.body == kScript);
  CHECK(header(script, "Cache-Control") == "public, max-age=31536000, immutable");
  CHECK(header(script, "Vary").empty());
  CHECK(header(script, "Content-Security-Policy").empty());
  // The same for a page whose version stands in the query; a wrong version is asked for again.
  const std::string version(files().version("/"));
  CHECK(header(get("/?v=" + version), "Cache-Control").find("immutable") != std::string::npos);
  CHECK(header(get("/?v=0"), "Cache-Control") == "no-cache");
}

TEST_CASE("only these paths") {
  CHECK(files().has("/"));
  CHECK(files().has("/assets/app-1a2b.js"));
  for (const char* path :
       {"", "//", "/assets", "/assets/", "/assets/app-1a2b.js/", "/index.html", "/assets/../"}) {
    CHECK_FALSE(files().has(path));
    CHECK(get(path).status == 404);
  }
}
