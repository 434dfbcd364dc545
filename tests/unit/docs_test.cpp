// /docs (R81): what is served, in which encoding, for how long, and what the pages may load.
#include <doctest/doctest.h>
#include <yaml-cpp/yaml.h>

#include <set>

#include "base/accept_encoding.hpp"
#include "docs/api_docs.hpp"
#include "docs/docs_data.hpp"
#include "json/json.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {

const std::string kScript = "console.log('Scalar')";
const std::string kScriptGzip = "\x1f\x8b (compressed)";

HttpResponse get(const ApiDocs& docs, const std::string& target, const HttpHeaders& headers = {}) {
  HttpRequest request;
  request.method = "GET";
  request.target = target;
  request.headers = headers;
  REQUIRE(docs.has(request.path()));
  return docs.answer(request);
}

std::string header(const HttpResponse& response, const char* name) {
  const std::string* value = response.header(name);
  return value == nullptr ? "" : *value;
}

const HttpHeaders kGzip{{"Accept-Encoding", "gzip, deflate, br"}};

void same(const YAML::Node& node, const Json& json, const std::string& at) {
  CAPTURE(at);
  if (node.IsMap()) {
    REQUIRE(json.is_object());
    CHECK(json.size() == node.size());
    for (const auto& member : node) {
      const std::string name = member.first.Scalar();
      REQUIRE(json.contains(name));
      same(member.second, json[name], at + "/" + name);
    }
  } else if (node.IsSequence()) {
    REQUIRE(json.is_array());
    REQUIRE(json.size() == node.size());
    for (std::size_t i = 0; i < json.size(); ++i) same(node[i], json[i], at + "/" + std::to_string(i));
  } else if (json.is_string()) {
    CHECK(json == node.Scalar());
  } else if (json.is_null()) {
    CHECK(node.IsNull());
  } else {
    CHECK(json.dump() == node.Scalar());
  }
}

}  // namespace

TEST_CASE("the document is served as YAML, byte for byte, and as JSON that says the same") {
  const ApiDocs docs(true, {}, {});
  const auto yaml = get(docs, "/docs/openapi.yaml");
  CHECK(yaml.status == 200);
  CHECK(header(yaml, "Content-Type") == "application/yaml");
  CHECK(yaml.body == docs_data()->yaml.plain);
  const auto json = get(docs, "/docs/openapi.json");
  CHECK(header(json, "Content-Type") == "application/json");
  const auto parsed = parse_json(json.body);
  REQUIRE(parsed);
  CHECK((*parsed)["openapi"] == "3.0.3");
  CHECK((*parsed)["paths"].contains("/api/auth/me"));
  same(YAML::Load(yaml.body), *parsed, "");
  // In the order of the document, which readers rely on.
  CHECK(json.body.find("\"/api/auth/register\"") < json.body.find("\"/api/auth/me\""));
  CHECK(json.body.starts_with(R"({"openapi":"3.0.3","info":)"));
}

TEST_CASE("gzip for those who take it, each encoding with a tag of its own") {
  const ApiDocs docs(true, kScript, kScriptGzip);
  for (const char* path : {"/docs/openapi.yaml", "/docs/openapi.json", "/docs/scalar.js", "/docs/docs.js"}) {
    CAPTURE(path);
    const auto plain = get(docs, path);
    const auto packed = get(docs, path, kGzip);
    CHECK(header(plain, "Content-Encoding").empty());
    CHECK(header(packed, "Content-Encoding") == "gzip");
    CHECK(packed.body.starts_with("\x1f\x8b"));
    CHECK(plain.body != packed.body);
    CHECK(header(plain, "ETag") != header(packed, "ETag"));
    for (const auto* response : {&plain, &packed}) CHECK(header(*response, "Vary") == "Accept-Encoding");
    CHECK(get(docs, path, {{"Accept-Encoding", "gzip;q=0"}}).body == plain.body);
    CHECK(get(docs, path, {{"Accept-Encoding", "br"}}).body == plain.body);
  }
  CHECK(docs_data()->json.gzip.size() * 4 < docs_data()->json.plain.size());
  const ApiDocs unpacked(true, kScript, {});
  CHECK(get(unpacked, "/docs/scalar.js", kGzip).body == kScript);
  CHECK(header(get(unpacked, "/docs/scalar.js", kGzip), "Content-Encoding").empty());
}

TEST_CASE("what a client has is not sent again") {
  const ApiDocs docs(true, kScript, kScriptGzip);
  const auto first = get(docs, "/docs/openapi.json", kGzip);
  const std::string tag = header(first, "ETag");
  CHECK(header(first, "Cache-Control") == "no-cache");
  for (const std::string& known : {tag, "W/" + tag, "\"x\", " + tag, std::string("*")}) {
    CAPTURE(known);
    HttpHeaders headers = kGzip;
    headers.emplace_back("If-None-Match", known);
    const auto again = get(docs, "/docs/openapi.json", headers);
    CHECK(again.status == 304);
    CHECK(again.body.empty());
    CHECK(header(again, "ETag") == tag);
    CHECK(header(again, "Content-Type").empty());
  }
  for (const std::string& other : {std::string("\"x\""), header(get(docs, "/docs/openapi.json"), "ETag"),
                                   tag.substr(1), std::string()}) {
    HttpHeaders headers = kGzip;
    headers.emplace_back("If-None-Match", other);
    CHECK(get(docs, "/docs/openapi.json", headers).status == 200);
  }
}

TEST_CASE("only the version that a link names is kept for ever") {
  const ApiDocs docs(true, kScript, kScriptGzip);
  const auto page = get(docs, "/docs").body;
  const auto at = page.find("docs/scalar.js?v=");
  REQUIRE(at != std::string::npos);
  const std::string link = "/" + page.substr(at, page.find('"', at) - at);
  CHECK(header(get(docs, link), "Cache-Control") == "public, max-age=31536000, immutable");
  CHECK(header(get(docs, "/docs/scalar.js?v=0"), "Cache-Control") == "no-cache");
  const std::string changed = std::string(kScript) + ";";  // outlives the docs, which point to it
  const ApiDocs newer(true, changed, {});
  CHECK(header(get(newer, link), "Cache-Control") == "no-cache");
  CHECK(get(newer, "/docs").header("ETag") != nullptr);
  CHECK(header(get(newer, "/docs"), "ETag") != header(get(docs, "/docs"), "ETag"));
}

TEST_CASE("R81: pages load from the gateway alone, by relative links") {
  const ApiDocs scalar(true, kScript, kScriptGzip);
  const ApiDocs plain(true, {}, {});
  for (const ApiDocs* docs : {&scalar, &plain}) {
    const auto page = get(*docs, "/docs");
    CHECK(header(page, "Content-Type") == "text/html; charset=utf-8");
    CHECK(header(page, "Referrer-Policy") == "no-referrer");
    const std::string policy = header(page, "Content-Security-Policy");
    CHECK(policy.starts_with("default-src 'none'"));
    CHECK(policy.find("http") == std::string::npos);
    CHECK(policy.find('*') == std::string::npos);
    CHECK(policy.find("frame-ancestors 'none'") != std::string::npos);
    for (const char* attribute : {"src=\"", "href=\""}) {
      for (auto at = page.body.find(attribute); at != std::string::npos;
           at = page.body.find(attribute, at + 1)) {
        const auto from = at + std::string(attribute).size();
        const std::string link = page.body.substr(from, page.body.find('"', from) - from);
        CAPTURE(link);
        if (link == "data:,") continue;  // no icon
        CHECK(docs->has("/" + link.substr(0, link.find('?'))));
      }
    }
  }
  const std::string policy = header(get(scalar, "/docs"), "Content-Security-Policy");
  CHECK(policy.find("script-src 'self';") != std::string::npos);
  CHECK(policy.find("connect-src 'self';") != std::string::npos);
  CHECK(header(get(plain, "/docs"), "Content-Security-Policy").find("script") == std::string::npos);
}

TEST_CASE("without Scalar the page lists every operation, by groups") {
  const ApiDocs docs(true, {}, {});
  const std::string page = get(docs, "/docs").body;
  CHECK(page.find("<script") == std::string::npos);
  CHECK_FALSE(docs.has("/docs/scalar.js"));
  CHECK_FALSE(docs.has("/docs/docs.js"));
  CHECK(header(get(docs, "/docs/docs.css"), "Content-Type") == "text/css; charset=utf-8");
  const auto document = parse_json(docs_data()->json.plain);
  REQUIRE(document);
  std::size_t operations = 0;
  for (const auto& [path, item] : (*document)["paths"].items())
    for (std::size_t i = 0; i < item.size(); ++i) {
      CAPTURE(path);
      CHECK(page.find("<code>" + path + "</code>") != std::string::npos);
      ++operations;
    }
  std::size_t listed = 0;
  for (auto at = page.find("<summary>"); at != std::string::npos; at = page.find("<summary>", at + 1))
    ++listed;
  CHECK(listed == operations);
  for (const auto& tag : (*document)["tags"])
    CHECK(page.find("<h2>" + tag["name"].get<std::string>() + "</h2>") != std::string::npos);
}

TEST_CASE("docs that are off have nothing") {
  const ApiDocs docs(false, kScript, kScriptGzip);
  for (const char* path : {"/docs", "/docs/openapi.yaml", "/docs/openapi.json", "/docs/scalar.js",
                           "/docs/docs.js", "/docs/docs.css"})
    CHECK_FALSE(docs.has(path));
  const ApiDocs on(true, kScript, kScriptGzip);
  for (const char* path : {"/docs/", "/docs/x", "/docs/openapi", "/doc", "/docs/../docs", ""})
    CHECK_FALSE(on.has(path));
}

TEST_CASE("which encodings a client takes") {
  const auto takes = [](const char* value) { return accepts_gzip({{"accept-encoding", value}}); };
  for (const char* value :
       {"gzip", "GZIP", "x-gzip", "*", "gzip;q=0.5", "br, gzip ; q=1.0", "gzip, identity;q=0.5"})
    CHECK_MESSAGE(takes(value), value);
  for (const char* value : {"", "br", "gzip;q=0", "gzip;q=0.000", "*;q=0", "gzip;q=0.1, identity", "gzip;q=x",
                            "gzip;q=2", "gzipped"})
    CHECK_MESSAGE(!takes(value), value);
  CHECK_FALSE(accepts_gzip({}));
}
