// The wire of revision 2026-07-28 and the translation between the eras, as tables.
#include <doctest/doctest.h>

#include "json/raw.hpp"
#include "protocol/bridge.hpp"
#include "protocol/modern.hpp"
#include "protocol/tool_headers.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {

constexpr std::string_view kSupported = R"(["2026-07-28","2025-11-25"])";

std::string about(std::string_view version = "2026-07-28", std::string_view more = "") {
  return R"({"io.modelcontextprotocol/protocolVersion":")" + std::string(version) +
         R"(","io.modelcontextprotocol/clientCapabilities":{})" + std::string(more) + "}";
}

std::string message(std::string_view method, std::string_view params) {
  return make_request("1", method, params);
}

Envelope envelope(const std::string& text) {
  REQUIRE(raw::check(text, 64) == raw::Fault::none);
  auto read = read_envelope(text);
  REQUIRE(std::holds_alternative<Envelope>(read));
  return std::get<Envelope>(read);
}

std::optional<ModernFault> read(std::string_view method, std::string_view params, const HttpHeaders& headers,
                                ModernRequest* out = nullptr) {
  const std::string text = message(method, params);
  ModernRequest request;
  auto fault = read_modern_request(envelope(text), headers, kSupported, request);
  if (out != nullptr) *out = request;
  return fault;
}

HttpHeaders headers(std::string_view method, HttpHeaders more = {}, std::string_view version = "2026-07-28") {
  HttpHeaders out{{"mcp-protocol-version", std::string(version)}, {"MCP-METHOD", std::string(method)}};
  for (auto& header : more) out.push_back(std::move(header));
  return out;
}

std::string tool(std::string_view schema) {
  return R"({"name":"t","inputSchema":)" + std::string(schema) + "}";
}

}  // namespace

TEST_CASE("the era of a message") {
  struct Row {
    const char* what;
    std::string text;
    HttpHeaders headers;
    Era era;
  };
  const Row rows[] = {
      {"initialize without anything",
       message("initialize", R"({"protocolVersion":"2025-11-25"})"),
       {},
       Era::legacy},
      {"initialize with a legacy header",
       message("initialize", R"({"protocolVersion":"2025-11-25"})"),
       {{"MCP-Protocol-Version", "2025-11-25"}, {"Mcp-Method", "initialize"}},
       Era::legacy},
      {"initialize in modern dress",
       message("initialize", R"({"_meta":)" + about() + "}"),
       {{"MCP-Protocol-Version", "2026-07-28"}},
       Era::modern},
      {"_meta alone", message("tools/list", R"({"_meta":)" + about() + "}"), {}, Era::modern},
      {"_meta with a session id",
       message("tools/list", R"({"_meta":)" + about() + "}"),
       {{"Mcp-Session-Id", "x"}},
       Era::modern},
      {"header alone", message("server/discover", ""), {{"MCP-Protocol-Version", "2026-07-28"}}, Era::modern},
      {"an unknown header", message("tools/list", "{}"), {{"MCP-Protocol-Version", "v999.0.0"}}, Era::modern},
      {"a legacy header", message("tools/list", "{}"), {{"MCP-Protocol-Version", "2025-06-18"}}, Era::legacy},
      {"nothing", message("tools/list", "{}"), {}, Era::legacy},
      {"other members of _meta", message("tools/list", R"({"_meta":{"progressToken":1}})"), {}, Era::legacy},
      {"_meta names a legacy revision",
       message("tools/list", R"({"_meta":{"io.modelcontextprotocol/protocolVersion":"2025-11-25"}})"),
       {{"Mcp-Session-Id", "x"}},
       Era::legacy},
      {"_meta names something odd",
       message("tools/list", R"({"_meta":{"io.modelcontextprotocol/protocolVersion":7}})"),
       {},
       Era::modern},
      {"capabilities only",
       message("tools/list", R"({"_meta":{"io.modelcontextprotocol/clientCapabilities":{}}})"),
       {},
       Era::modern},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    CHECK(era_of(envelope(row.text), row.headers) == row.era);
  }
}

TEST_CASE("a well-formed request is read") {
  ModernRequest out;
  const std::string params =
      R"({"name":"größe","_meta":)" +
      about("2026-07-28", R"(,"progressToken":"p","io.modelcontextprotocol/logLevel":"info",)"
                          R"("io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"})") +
      "}";
  const std::string text = message("tools/call", params);
  CHECK_FALSE(read_modern_request(
      envelope(text), headers("tools/call", {{"Mcp-Name", "=?base64?Z3LDtsOfZQ==?="}}), kSupported, out));
  CHECK(out.version == "2026-07-28");
  CHECK(out.capabilities == "{}");
  CHECK(out.client_info == R"({"name":"c","version":"1"})");
  CHECK(out.log_level == "info");
  CHECK(out.progress_token == "\"p\"");
}

TEST_CASE("malformed requests have the code that the specification gives them") {
  const std::string good = R"({"_meta":)" + about() + "}";
  const std::string call = R"({"name":"echo","_meta":)" + about() + "}";
  struct Row {
    const char* what;
    std::string method, params;
    HttpHeaders headers;
    int code;  // 0: none
  };
  const Row rows[] = {
      {"good", "tools/list", good, headers("tools/list"), 0},
      {"no _meta", "server/discover", "{}", headers("server/discover"), -32602},
      {"no params", "server/discover", "", headers("server/discover"), -32602},
      {"params an array", "server/discover", "[]", headers("server/discover"), -32602},
      {"_meta no object", "server/discover", R"({"_meta":7})", headers("server/discover"), -32602},
      {"version no string", "tools/list", R"({"_meta":{"io.modelcontextprotocol/protocolVersion":7}})",
       headers("tools/list"), -32602},
      {"no capabilities", "tools/list",
       R"({"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}})", headers("tools/list"),
       -32602},
      {"capabilities no object", "tools/list",
       R"({"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":[]}})",
       headers("tools/list"), -32602},
      {"client info without a version", "tools/list",
       R"({"_meta":)" + about("2026-07-28", R"(,"io.modelcontextprotocol/clientInfo":{"name":"x"})") + "}",
       headers("tools/list"), -32602},
      {"odd log level", "tools/list",
       R"({"_meta":)" + about("2026-07-28", R"(,"io.modelcontextprotocol/logLevel":"loud")") + "}",
       headers("tools/list"), -32602},
      {"odd progress token", "tools/list",
       R"({"_meta":)" + about("2026-07-28", R"(,"progressToken":1.5)") + "}", headers("tools/list"), -32602},
      {"unknown in both", "tools/list", R"({"_meta":)" + about("v999.0.0") + "}",
       headers("tools/list", {}, "v999.0.0"), -32022},
      {"unknown header, no _meta", "tools/list", "{}", headers("tools/list", {}, "v999.0.0"), -32022},
      {"header and body differ", "tools/list", good, headers("tools/list", {}, "2025-11-25"), -32020},
      {"unknown body, known header", "tools/list", R"({"_meta":)" + about("v999.0.0") + "}",
       headers("tools/list"), -32020},
      {"no version header", "tools/list", good, {{"Mcp-Method", "tools/list"}}, -32020},
      {"two version headers", "tools/list", good,
       headers("tools/list", {{"MCP-Protocol-Version", "2026-07-28"}}), -32020},
      {"no method header", "tools/list", good, {{"MCP-Protocol-Version", "2026-07-28"}}, -32020},
      {"another method", "tools/list", good, headers("tools/call"), -32020},
      {"method in another case", "tools/list", good, headers("Tools/List"), -32020},
      {"two method headers", "tools/list", good, headers("tools/list", {{"Mcp-Method", "tools/list"}}),
       -32020},
      {"no name header", "tools/call", call, headers("tools/call"), -32020},
      {"another name", "tools/call", call, headers("tools/call", {{"Mcp-Name", "delete"}}), -32020},
      {"name in another case", "tools/call", call, headers("tools/call", {{"Mcp-Name", "Echo"}}), -32020},
      {"name encoded", "tools/call", call, headers("tools/call", {{"Mcp-Name", "=?base64?ZWNobw==?="}}), 0},
      {"name encoded without padding", "tools/call", call,
       headers("tools/call", {{"Mcp-Name", "=?base64?ZWNobw?="}}), -32020},
      {"bytes of no header", "tools/call", call, headers("tools/call", {{"Mcp-Name", "ech\xc3\xb6"}}),
       -32020},
      {"no name at all", "tools/call", good, headers("tools/call", {{"Mcp-Name", "x"}}), -32602},
      {"a URI", "resources/read", R"({"uri":"file:///a","_meta":)" + about() + "}",
       headers("resources/read", {{"mcp-name", "file:///a"}}), 0},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    const auto fault = read(row.method, row.params, row.headers);
    CHECK((fault ? fault->code : 0) == row.code);
    if (fault) {
      CHECK(fault->status == 400);
      CHECK(fault->status == modern_status(fault->code));
      CHECK(raw::check(fault->data, 8) == raw::Fault::none);
    }
  }
  const auto unknown =
      read("tools/list", R"({"_meta":)" + about("v9") + "}", headers("tools/list", {}, "v9"));
  REQUIRE(unknown);
  CHECK(raw::find(unknown->data, "supported") == kSupported);
  CHECK(raw::find(unknown->data, "requested") == "\"v9\"");
}

TEST_CASE("header values") {
  const std::pair<const char*, const char*> rows[] = {
      {"us-west1", "us-west1"},
      {"Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="},
      {" padded ", "=?base64?IHBhZGRlZCA=?="},
      {"line1\nline2", "=?base64?bGluZTEKbGluZTI=?="},
      {"=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="},
      {"a b\tc", "a b\tc"},
      {"", ""},
  };
  for (const auto& [plain, encoded] : rows) {
    CHECK(encode_header_value(plain) == encoded);
    CHECK(decode_header_value(encoded) == plain);
  }
  for (const char* bad :
       {"\xc3\xb6", "a\x01", "=?base64?!!!?=", "=?base64?YQ?=", "=?base64?/w==?=", "a\r\nX: y"})
    CHECK_FALSE(decode_header_value(bad));
  // The markers are case-sensitive: anything else is a value as it is.
  CHECK(decode_header_value("=?BASE64?YQ==?=") == "=?BASE64?YQ==?=");
}

TEST_CASE("headers for the hop to a modern upstream") {
  CHECK(standard_headers("tools/call", R"({"name":"größe"})") ==
        HttpHeaders{{"Mcp-Method", "tools/call"}, {"Mcp-Name", "=?base64?Z3LDtsOfZQ==?="}});
  CHECK(standard_headers("resources/read", R"({"uri":"file:///a b"})") ==
        HttpHeaders{{"Mcp-Method", "resources/read"}, {"Mcp-Name", "file:///a b"}});
  CHECK(standard_headers("tools/list", "{}") == HttpHeaders{{"Mcp-Method", "tools/list"}});
}

TEST_CASE("statuses of errors") {
  CHECK(modern_status(-32601) == 404);
  for (const int code : {-32700, -32600, -32602, -32020, -32021, -32022}) CHECK(modern_status(code) == 400);
  for (const int code : {-32603, -32000, 1, 42}) CHECK(modern_status(code) == 200);
}

TEST_CASE("annotations of tools") {
  struct Row {
    const char* what;
    const char* schema;
    int count;  // -1: invalid
  };
  const Row rows[] = {
      {"none", R"({"type":"object"})", 0},
      {"one", R"({"properties":{"region":{"type":"string","x-mcp-header":"Region"}}})", 1},
      {"nested", R"({"properties":{"a":{"properties":{"b":{"type":"integer","x-mcp-header":"B"}}}}})", 1},
      {"boolean", R"({"properties":{"a":{"type":"boolean","x-mcp-header":"A"}}})", 1},
      {"a property of that name", R"({"properties":{"x-mcp-header":{"type":"string"}}})", 0},
      {"in a default", R"({"properties":{"a":{"type":"object","default":{"x-mcp-header":1}}}})", 0},
      {"in a description", R"({"properties":{"a":{"type":"string","description":"x-mcp-header"}}})", 0},
      {"escaped key", R"({"properties":{"a":{"type":"string","x\u002dmcp-header":""}}})", -1},
      {"empty", R"({"properties":{"a":{"type":"string","x-mcp-header":""}}})", -1},
      {"no string", R"({"properties":{"a":{"type":"string","x-mcp-header":7}}})", -1},
      {"a space", R"({"properties":{"a":{"type":"string","x-mcp-header":"My Header"}}})", -1},
      {"a colon", R"({"properties":{"a":{"type":"string","x-mcp-header":"A:B"}}})", -1},
      {"a line break", R"({"properties":{"a":{"type":"string","x-mcp-header":"A\r\nB"}}})", -1},
      {"not ASCII", R"({"properties":{"a":{"type":"string","x-mcp-header":"Ä"}}})", -1},
      {"twice",
       R"({"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}})",
       -1},
      {"number", R"({"properties":{"a":{"type":"number","x-mcp-header":"A"}}})", -1},
      {"object", R"({"properties":{"a":{"type":"object","x-mcp-header":"A"}}})", -1},
      {"no type", R"({"properties":{"a":{"x-mcp-header":"A"}}})", -1},
      {"at the root", R"({"type":"string","x-mcp-header":"A"})", -1},
      {"in items", R"({"properties":{"a":{"type":"array","items":{"type":"string","x-mcp-header":"A"}}}})",
       -1},
      {"in oneOf", R"({"oneOf":[{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}]})", -1},
      {"in not", R"({"not":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}})", -1},
      {"in then", R"({"then":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}})", -1},
      {"in $defs", R"({"$defs":{"a":{"type":"string","x-mcp-header":"A"}}})", -1},
      {"a definition of that name", R"({"$defs":{"x-mcp-header":{"type":"string"}}})", 0},
      {"in additionalProperties", R"({"additionalProperties":{"type":"string","x-mcp-header":"A"}})", -1},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    std::string why;
    const auto found = tool_headers(tool(row.schema), &why);
    CHECK((found ? static_cast<int>(found->size()) : -1) == row.count);
    CHECK(why.empty() == found.has_value());
  }
}

TEST_CASE("arguments and their headers") {
  const auto declared = tool_headers(tool(
      R"({"properties":{"region":{"type":"string","x-mcp-header":"Region"},"n":{"type":"integer","x-mcp-header":"N"},)"
      R"("in":{"properties":{"flag":{"type":"boolean","x-mcp-header":"Flag"}}}}})"));
  REQUIRE(declared);
  CHECK(parameter_headers(*declared, R"({"region":"Köln","n":42,"in":{"flag":true}})") ==
        HttpHeaders{
            {"Mcp-Param-Region", "=?base64?S8O2bG4=?="}, {"Mcp-Param-N", "42"}, {"Mcp-Param-Flag", "true"}});
  CHECK(parameter_headers(*declared, R"({"region":null,"n":9007199254740993})").empty());
  CHECK(parameter_headers(*declared, "").empty());

  struct Row {
    const char* what;
    const char* arguments;
    HttpHeaders headers;
    bool good;
  };
  const Row rows[] = {
      {"nothing", "{}", {}, true},
      {"no arguments", "", {}, true},
      {"null wants none", R"({"region":null})", {}, true},
      {"equal", R"({"region":"eu"})", {{"mcp-param-region", "eu"}}, true},
      {"encoded", R"({"region":"Köln"})", {{"Mcp-Param-Region", "=?base64?S8O2bG4=?="}}, true},
      {"missing", R"({"region":"eu"})", {}, false},
      {"different", R"({"region":"eu"})", {{"Mcp-Param-Region", "us"}}, false},
      {"another case", R"({"region":"eu"})", {{"Mcp-Param-Region", "EU"}}, false},
      {"there without argument", "{}", {{"Mcp-Param-Region", "eu"}}, false},
      {"there for null", R"({"region":null})", {{"Mcp-Param-Region", "null"}}, false},
      {"twice", R"({"region":"eu"})", {{"Mcp-Param-Region", "eu"}, {"mcp-param-REGION", "us"}}, false},
      {"bad base64", R"({"region":"eu"})", {{"Mcp-Param-Region", "=?base64?ZXU?="}}, false},
      {"bad bytes", R"({"region":"eu"})", {{"Mcp-Param-Region", "e\xffu"}}, false},
      {"numbers compare as numbers", R"({"n":42})", {{"Mcp-Param-N", "42.0"}}, true},
      {"both ways", R"({"n":42.0})", {{"Mcp-Param-N", "42"}}, true},
      {"other number", R"({"n":42})", {{"Mcp-Param-N", "43"}}, false},
      {"no number", R"({"n":42})", {{"Mcp-Param-N", "0x2a"}}, false},
      {"a string is compared as text", R"({"region":"42"})", {{"Mcp-Param-Region", "42.0"}}, false},
      {"unknown ones are ignored", "{}", {{"Mcp-Param-Else", "\xff"}}, true},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    const auto fault = check_parameter_headers(*declared, row.arguments, row.headers);
    CHECK(fault.has_value() != row.good);
    if (fault) CHECK(fault->code == -32020);
  }
}

TEST_CASE("invalid tools are left out, the others keep their bytes") {
  const std::string good = R"({"name":"a", "inputSchema":{"n":1.0}})";
  const std::string bad =
      R"({"name":"b","inputSchema":{"properties":{"p":{"type":"number","x-mcp-header":"P"}}}})";
  CHECK(without_invalid_tools(R"({"tools":[)" + good + "," + bad + "," + good + R"(],"nextCursor":"c"})") ==
        R"({"tools":[)" + good + "," + good + R"(],"nextCursor":"c"})");
  CHECK(without_invalid_tools(R"({"tools": [)" + good + "]}") == R"({"tools": [)" + good + "]}");
}

TEST_CASE("params between the eras") {
  CHECK(legacy_params(R"({"name":"a","arguments":{"n":1.0},"_meta":)" + about() + "}") ==
        R"({"name":"a","arguments":{"n":1.0}})");
  CHECK(legacy_params(R"({"_meta":)" + about("2026-07-28", R"(,"com.example/x":[1.0],"progressToken":3)") +
                      "}") == R"({"_meta":{"com.example/x":[1.0],"progressToken":3}})");
  CHECK(legacy_params(R"({"name":"a","inputResponses":{"k":{}},"requestState":"s"})") == R"({"name":"a"})");
  CHECK(legacy_params("") == "");

  ModernMeta about_client;
  about_client.capabilities = R"({"sampling":{}})";
  about_client.log_level = "info";
  const std::string out = modern_params(R"({"name":"a","_meta":{"x/y":1.0}})", about_client);
  CHECK(out.starts_with(R"({"name":"a","_meta":{"x/y":1.0,)"));
  CHECK(raw::find(raw::find(out, "_meta"), meta::kVersion) == "\"2026-07-28\"");
  CHECK(raw::find(raw::find(out, "_meta"), meta::kCapabilities) == R"({"sampling":{}})");
  CHECK(raw::find(raw::find(out, "_meta"), meta::kLogLevel) == "\"info\"");
  CHECK(raw::find(modern_params("", {}), "_meta") == about());

  CHECK(legacy_capabilities(R"({"tasks":{},"sampling":{},"elicitation":{}})") ==
        R"({"elicitation":{},"sampling":{}})");
  CHECK(legacy_capabilities(R"({"extensions":{"io.modelcontextprotocol/tasks":{},"a/b":{}}})") ==
        R"({"extensions":{"a/b":{}}})");
  CHECK(legacy_capabilities(R"({"extensions":{"io.modelcontextprotocol/tasks":{}}})") == "{}");
  CHECK(legacy_capabilities("7") == "{}");
}

TEST_CASE("capabilities of clients that share a server") {
  const std::pair<const char*, const char*> rows[] = {
      {"{}", "{}"},
      {"7", "{}"},
      {R"({"sampling":{},"elicitation":{}})", R"({"elicitation":{},"sampling":{}})"},
      {R"({"elicitation":{"form":{}},"sampling":{}})", R"({"elicitation":{},"sampling":{}})"},
      {R"({"elicitation":{"url":{},"form":{}}})", R"({"elicitation":{"form":{},"url":{}}})"},
      {R"({"elicitation":{"url":{}}})", R"({"elicitation":{"url":{}}})"},
      {R"({"roots":{"listChanged":true}})", R"({"roots":{}})"},
      {R"({"sampling":{"tools":{}},"tasks":{}})", R"({"sampling":{"tools":{}}})"},
      {R"({"experimental":{},"extensions":{"io.modelcontextprotocol/tasks":{}}})", "{}"},
      {R"({"extensions":{"a/b":{"n":1}}})", R"({"extensions":{"a/b":{"n":1}}})"},
  };
  for (const auto& [given, shared] : rows) {
    CAPTURE(given);
    CHECK(shared_capabilities(given) == shared);
    CHECK(shared_capabilities(shared) == shared);
  }
}

TEST_CASE("results between the eras") {
  struct Row {
    const char *method, *legacy, *modern;
  };
  const Row rows[] = {
      {"tools/call", R"({"content":[],"structuredContent":{"n":1.0}})",
       R"({"content":[],"structuredContent":{"n":1.0},"resultType":"complete"})"},
      {"tools/list", R"({"tools":[]})",
       R"({"tools":[],"resultType":"complete","ttlMs":0,"cacheScope":"private"})"},
      {"resources/read", R"({"contents":[]})",
       R"({"contents":[],"resultType":"complete","ttlMs":0,"cacheScope":"private"})"},
      {"prompts/get", R"({"messages":[]})", R"({"messages":[],"resultType":"complete"})"},
  };
  for (const Row& row : rows) {
    CHECK(modern_result(row.method, row.legacy, "") == row.modern);
    CHECK(legacy_result(row.method, row.modern) == row.legacy);
  }
  CHECK(
      modern_result("tools/call", R"({"content":[],"_meta":{"a/b":1}})", R"({"name":"g"})") ==
      R"({"content":[],"_meta":{"a/b":1,"io.modelcontextprotocol/serverInfo":{"name":"g"}},"resultType":"complete"})");
  // What a server says of sharing is not ours to repeat; a lifetime is.
  CHECK(modern_result("resources/read", R"({"contents":[],"ttlMs":5,"cacheScope":"public"})", "") ==
        R"({"contents":[],"ttlMs":5,"cacheScope":"private","resultType":"complete"})");
  CHECK(modern_result("resources/read", R"({"contents":[],"ttlMs":-5})", "") ==
        R"({"contents":[],"ttlMs":0,"resultType":"complete","cacheScope":"private"})");
  CHECK(legacy_result("tools/call", R"({"content":[],"structuredContent":[1]})") == R"({"content":[]})");
  CHECK(
      legacy_result(
          "tools/list",
          R"({"tools":[{"name":"a","outputSchema":{"type":"array"}},{"name":"b","outputSchema":{"type":"object"}}]})") ==
      R"({"tools":[{"name":"a"},{"name":"b","outputSchema":{"type":"object"}}]})");
  CHECK(legacy_result("logging/setLevel",
                      R"({"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{}}})") ==
        "{}");
  CHECK(needs_input(R"({"resultType":"input_required"})"));
  CHECK_FALSE(needs_input(R"({"content":[]})"));
}

TEST_CASE("errors between the eras") {
  struct Row {
    const char *what, *asked, *error, *expected;
  };
  // Of a legacy server, or of the gateway, for a modern client.
  const Row up[] = {
      {"no such resource", "a:b", R"({"code":-32002,"message":"no"})",
       R"({"code":-32602,"message":"no","data":{"uri":"a:b"}})"},
      {"of another request", "", R"({"code":-32002,"message":"no"})", R"({"code":-32602,"message":"no"})"},
      {"data is kept", "a:b", R"({"code":-32602,"message":"no","data":{"x":1.0}})",
       R"({"code":-32602,"message":"no","data":{"x":1.0,"uri":"a:b"}})"},
      {"data that is no object", "a:b", R"({"code":-32002,"message":"no","data":[1]})",
       R"({"code":-32602,"message":"no","data":{"uri":"a:b"}})"},
      {"invalid params", "", R"({"code":-32602,"message":"no"})", R"({"code":-32602,"message":"no"})"},
      {"method not found", "", R"({"code":-32601,"message":"x"})", R"({"code":-32601,"message":"x"})"},
      {"internal", "", R"({"code":-32603,"message":"x","data":1.0})",
       R"({"code":-32603,"message":"x","data":1.0})"},
      // Codes that have a meaning of their own in this era, or none any more.
      {"header mismatch", "", R"({"code":-32020,"message":"x"})", R"({"code":-32603,"message":"x"})"},
      {"missing capability", "", R"({"code":-32021,"message":"x"})", R"({"code":-32603,"message":"x"})"},
      {"unsupported version", "", R"({"code":-32022,"message":"x"})", R"({"code":-32603,"message":"x"})"},
      {"a URL to visit", "", R"({"code":-32042,"message":"x"})", R"({"code":-32603,"message":"x"})"},
      {"the end of the range", "", R"({"code":-32099,"message":"x"})", R"({"code":-32603,"message":"x"})"},
      {"a server's own", "", R"({"code":7,"message":"x"})", R"({"code":7,"message":"x"})"},
      {"below the range", "", R"({"code":-32019,"message":"x"})", R"({"code":-32019,"message":"x"})"},
      {"none", "", R"({"message":"x"})", R"({"code":-32603,"message":"The server's error has no code"})"},
  };
  for (const Row& row : up) {
    CAPTURE(row.what);
    CHECK(modern_error(row.error, row.asked) == row.expected);
  }
  // Of a modern server, for a legacy client; `asked` is the method here.
  const Row down[] = {
      {"no such resource", "resources/read", R"({"code":-32602,"message":"no","data":{"uri":"a:b"}})",
       R"({"code":-32002,"message":"no","data":{"uri":"a:b"}})"},
      {"invalid params of a read", "resources/read", R"({"code":-32602,"message":"no"})",
       R"({"code":-32602,"message":"no"})"},
      {"of another request", "tools/call", R"({"code":-32602,"message":"no","data":{"uri":"a:b"}})",
       R"({"code":-32602,"message":"no","data":{"uri":"a:b"}})"},
      {"header mismatch", "tools/call", R"({"code":-32020,"message":"x"})",
       R"({"code":-32603,"message":"x"})"},
      {"missing capability", "tools/call", R"({"code":-32021,"message":"x"})",
       R"({"code":-32602,"message":"x"})"},
      {"unsupported version", "tools/call", R"({"code":-32022,"message":"x"})",
       R"({"code":-32603,"message":"x"})"},
      {"method not found", "prompts/get", R"({"code":-32601,"message":"x"})",
       R"({"code":-32601,"message":"x"})"},
      {"internal", "tools/call", R"({"code":-32603,"message":"x"})", R"({"code":-32603,"message":"x"})"},
      {"a server's own", "tools/call", R"({"code":-1,"message":"x","data":[1.0]})",
       R"({"code":-1,"message":"x","data":[1.0]})"},
      {"none", "tools/call", R"({"message":"x"})",
       R"({"code":-32603,"message":"The server's error has no code"})"},
  };
  for (const Row& row : down) {
    CAPTURE(row.what);
    CHECK(legacy_error(row.asked, row.error) == row.expected);
  }
}

TEST_CASE("pages that an error of before wants visited") {
  const auto error = [](const std::string& data, int code = -32042) {
    return R"({"code":)" + std::to_string(code) + R"(,"message":"m","data":)" + data + "}";
  };
  const std::string one = R"({"mode":"url","elicitationId":"i","url":"https://a","message":"m"})";
  const auto found = url_elicitations(error(R"({"elicitations":[)" + one + "," + one + "]}"));
  REQUIRE(found);
  REQUIRE(found->size() == 2);
  CHECK((*found)[0].key == "visit_1");
  CHECK((*found)[1].key == "visit_2");
  CHECK((*found)[0].method == "elicitation/create");
  CHECK((*found)[0].params == one);
  std::string many;
  for (int i = 0; i < 17; ++i) many += (i ? "," : "") + one;
  for (const std::string& bad :
       {error(R"({"elicitations":[)" + one + "]}", -32603), error("{}"), error(R"({"elicitations":[]})"),
        error(R"({"elicitations":7})"), error(R"({"elicitations":["x"]})"),
        error(R"({"elicitations":[{"mode":"form","message":"m"}]})"),
        error(R"({"elicitations":[{"mode":"url","message":"m"}]})"),
        error(R"({"elicitations":[{"mode":"url","url":7,"message":"m"}]})"),
        error(R"({"elicitations":[)" + many + "]}"), std::string(R"({"code":-32042,"message":"m"})")}) {
    CAPTURE(bad);
    CHECK_FALSE(url_elicitations(bad));
  }
}

TEST_CASE("which requests of a server a client takes") {
  struct Row {
    const char *capabilities, *method, *params;
    bool declared;
  };
  const Row rows[] = {
      {"{}", "sampling/createMessage", "{}", false},
      {R"({"sampling":{}})", "sampling/createMessage", "{}", true},
      {R"({"sampling":{}})", "sampling/createMessage", R"({"tools":[]})", false},
      {R"({"sampling":{"tools":{}}})", "sampling/createMessage", R"({"tools":[]})", true},
      {R"({"sampling":7})", "sampling/createMessage", "{}", false},
      {R"({"elicitation":{}})", "elicitation/create", "{}", true},
      {R"({"elicitation":{}})", "elicitation/create", R"({"mode":"form"})", true},
      {R"({"elicitation":{}})", "elicitation/create", R"({"mode":"url"})", false},
      {R"({"elicitation":{"url":{}}})", "elicitation/create", R"({"mode":"url"})", true},
      {R"({"elicitation":{"url":{}}})", "elicitation/create", "{}", false},
      {R"({"elicitation":{"url":{},"form":{}}})", "elicitation/create", "{}", true},
      {R"({"roots":{}})", "roots/list", "", true},
      {R"({"sampling":{}})", "roots/list", "", false},
      {R"({"sampling":{},"roots":{},"elicitation":{}})", "tools/list", "", false},
  };
  for (const Row& row : rows) {
    CAPTURE(row.capabilities);
    CAPTURE(row.method);
    CAPTURE(row.params);
    CHECK(declares(row.capabilities, row.method, row.params) == row.declared);
  }
  CHECK(required_capabilities("sampling/createMessage", "{}") == R"({"sampling":{}})");
  CHECK(required_capabilities("elicitation/create", R"({"mode":"url"})") == R"({"elicitation":{"url":{}}})");
  CHECK(required_capabilities("roots/list", "") == R"({"roots":{}})");
  CHECK(required_capabilities("tools/call", "") == "");
}

TEST_CASE("a result that asks for input") {
  CHECK(input_required(
            {{"a", "elicitation/create",
              R"({"message":"m","mode":"url","elicitationId":"e","_meta":{"progressToken":1},"task":{}})"},
             {"b", "roots/list", ""}},
            "state", R"({"name":"g"})") ==
        R"({"resultType":"input_required","inputRequests":{"a":{"method":"elicitation/create",)"
        R"("params":{"message":"m","mode":"url"}},"b":{"method":"roots/list"}},"requestState":"state",)"
        R"("_meta":{"io.modelcontextprotocol/serverInfo":{"name":"g"}}})");
  CHECK(is_input_response("elicitation/create", R"({"action":"accept","content":{}})"));
  CHECK(is_input_response("elicitation/create", R"({"action":"decline"})"));
  CHECK_FALSE(is_input_response("elicitation/create", R"({"action":"maybe"})"));
  CHECK_FALSE(is_input_response("elicitation/create", R"({"action":"accept","content":7})"));
  CHECK_FALSE(is_input_response("elicitation/create", "7"));
  CHECK_FALSE(is_input_response("elicitation/create", "null"));
  CHECK(is_input_response("sampling/createMessage",
                          R"({"role":"assistant","model":"m","content":{"type":"text"}})"));
  CHECK_FALSE(is_input_response("sampling/createMessage", R"({"role":"assistant"})"));
  CHECK(is_input_response("roots/list", R"({"roots":[]})"));
  CHECK_FALSE(is_input_response("roots/list", "{}"));
}
