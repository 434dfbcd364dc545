// The rules for members of stored objects.
#include "storage/validate.hpp"

#include <doctest/doctest.h>

#include "storage/model_text.hpp"

using namespace mcpgw;          // NOLINT
using namespace mcpgw::detail;  // NOLINT

namespace {

std::string field(const Status& status) { return status ? "ok" : status.error().field; }
std::string reason(const Status& status) { return status ? "ok" : status.error().reason; }

Target http_target() {
  Target target;
  target.name = "t";
  target.url = "https://mcp.example.com/mcp";
  return target;
}

const std::string kCert = "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n";
const std::string kKey = "-----BEGIN EC PRIVATE KEY-----\nA\n-----END EC PRIVATE KEY-----\n";

}  // namespace

TEST_CASE("R78: emails") {
  for (std::string good : {"a@b", " A.B+c@Example.COM ", "x@localhost", "ü@exämple.de", "a@1.2.3"}) {
    CAPTURE(good);
    CHECK(field(validate_email(good)) == "ok");
  }
  std::string shaped = " A@B.De\n";
  REQUIRE(validate_email(shaped));
  CHECK(shaped == "a@b.de");
  const std::string label(61, 'b');
  for (std::string bad :
       {std::string(), std::string("a"), std::string("@b"), std::string("a@"), std::string("a@b@c"),
        std::string("a b@c"), std::string("a@b..c"), std::string("a@.b"), std::string("a@b."),
        std::string("a@-b"), std::string("a@b_c"), std::string("a\x01@b"), std::string("a\0@b", 4),
        std::string("\xff@b"), std::string("a@") + std::string(64, 'b'), std::string(253, 'a') + "@b"}) {
    CAPTURE(bad);
    CHECK(field(validate_email(bad)) == "email");
  }
  std::string longest = std::string(252, 'a') + "@b";
  CHECK(field(validate_email(longest)) == "ok");
}

TEST_CASE("roles and groups") {
  for (const char* good : {"admin", "A", "9-x_y.z"}) CHECK(field(validate_role(good)) == "ok");
  CHECK(field(validate_role(std::string(50, 'r'))) == "ok");
  for (const std::string& bad : {std::string(), std::string(" a"), std::string("-a"), std::string("a b"),
                                 std::string("a/b"), std::string("é"), std::string(51, 'r')})
    CHECK(field(validate_role(bad)) == "role");
  std::vector<std::string> groups{" b ", "a", "b", "A"};
  REQUIRE(validate_groups(groups));
  CHECK(groups == std::vector<std::string>{"b", "a", "A"});
  for (const std::string& bad : {std::string(), std::string(" "), std::string("a,b"), std::string("a\tb"),
                                 std::string(101, 'x'), std::string("\xc3")}) {
    groups = {"ok", bad};
    CHECK(field(validate_groups(groups)) == "groups");
    CHECK(groups.size() == 2);  // untouched
  }
  std::string wide;
  for (int i = 0; i < 100; ++i) wide += "ü";  // 100 characters, 200 bytes
  groups = {wide};
  CHECK(field(validate_groups(groups)) == "ok");
  groups.assign(101, "g");
  CHECK(field(validate_groups(groups)) == "groups");
}

TEST_CASE("URLs of targets") {
  const auto parts = [](std::string_view url) {
    const auto parsed = parse_target_url(url);
    return parsed ? parsed->scheme + " " + parsed->host + " " + std::to_string(parsed->port) : "refused";
  };
  CHECK(parts("https://Example.com/mcp?x=1") == "https example.com 443");
  CHECK(parts("HTTP://h") == "http h 80");
  CHECK(parts("http://h:8080") == "http h 8080");
  CHECK(parts("http://h?x") == "http h 80");
  CHECK(parts("http://[::1]:9/x") == "http [::1] 9");
  CHECK(parts("http://[FE80::1:2]") == "http [fe80::1:2] 80");
  CHECK(parts("http://[::ffff:1.2.3.4]") == "http [::ffff:1.2.3.4] 80");
  CHECK(parts("http://[1:2:3:4:5:6:7:8]") == "http [1:2:3:4:5:6:7:8] 80");
  CHECK(parts("http://my_service.ns.svc:80/mcp") == "http my_service.ns.svc 80");
  CHECK(parts("http://127.0.0.1./") == "http 127.0.0.1. 80");
  CHECK(parts("http://h/%2Fx") == "http h 80");
  for (const char* bad : {"",
                          "h",
                          "/mcp",
                          "//h/x",
                          "ftp://h",
                          "file:///etc/passwd",
                          "http:/h",
                          "http://",
                          "http:///x",
                          "http://:80",
                          "http://u@h",
                          "http://u:p@h/",
                          "http://h/#f",
                          "http://h#",
                          "http://h:0",
                          "http://h:65536",
                          "http://h:x",
                          "http://h:",
                          "http://h:+1",
                          "http://h h",
                          "http://h/a b",
                          "http://h/\x01",
                          "http://h/\xc3\xa9",
                          "http://é",
                          "http://h\\@evil",
                          "http://h/%zz",
                          "http://[::1",
                          "http://[]",
                          "http://[::1]x",
                          "http://[1:2]",
                          "http://[1::2::3]",
                          "http://[fe80::1%25eth0]",
                          "http://[::256.1.1.1]",
                          "http://[1:2:3:4:5:6:7:8:9]",
                          "http://[:1]",
                          "http://[1:]",
                          "http://a..b",
                          "http://-a",
                          "http://a-",
                          "http://%31",
                          "http://h/\"",
                          "javascript:x"}) {
    CAPTURE(bad);
    CHECK(parts(bad) == "refused");
  }
  CHECK(parts("http://h/" + std::string(2000 - 9, 'x')) == "http h 80");
  CHECK(parts("http://h/" + std::string(2000 - 8, 'x')) == "refused");
  CHECK(parts(std::string_view("http://h/\0", 10)) == "refused");
}

TEST_CASE("image references") {
  for (const std::string& good :
       {std::string("nginx"), std::string("nginx:1.25"), std::string("library/nginx"),
        std::string("registry.example/team/server:1.2_x"), std::string("localhost/x"),
        std::string("localhost:5000/x"), std::string("r.example:5000/a/b@sha256:" + std::string(64, 'a')),
        std::string("a/b:t@sha256:" + std::string(64, '0')), std::string("a__b/c--d.e")})
    CHECK_MESSAGE(is_image_reference(good), good);
  for (const std::string& bad :
       {std::string(), std::string("Nginx"), std::string("a b"), std::string("-a"), std::string("a/"),
        std::string("/a"), std::string("a//b"), std::string("a:"), std::string("a:.x"),
        std::string("a@sha256:zz"), std::string("a@"), std::string("a..b"), std::string("a___b"),
        std::string("r.example:99999/a"), std::string("a:t:u"), std::string("a;rm"), std::string(501, 'a')})
    CHECK_MESSAGE(!is_image_reference(bad), bad);
  CHECK(image_repository("r.example:5000/a/b:1@sha256:0") == "r.example:5000/a/b");
  CHECK(image_repository("a:1") == "a");
  CHECK(image_repository("r.example:5000/a") == "r.example:5000/a");
}

TEST_CASE("targets: each member") {
  const TargetRules rules;
  const auto refused = [&](void (*change)(Target&)) {
    Target target = http_target();
    change(target);
    return field(validate_target(target, rules));
  };
  CHECK(refused([](Target&) {}) == "ok");
  CHECK(refused([](Target& t) { t.name = ""; }) == "name");
  CHECK(refused([](Target& t) { t.name = "-a"; }) == "name");
  CHECK(refused([](Target& t) { t.name = "a/b"; }) == "name");
  CHECK(refused([](Target& t) { t.name = "é"; }) == "name");
  CHECK(refused([](Target& t) { t.name = std::string(101, 'a'); }) == "name");
  CHECK(refused([](Target& t) { t.name = " " + std::string(100, 'a') + " "; }) == "ok");
  CHECK(refused([](Target& t) { t.slug = "A"; }) == "slug");
  CHECK(refused([](Target& t) { t.slug = "-a"; }) == "slug");
  CHECK(refused([](Target& t) { t.slug = "a_b"; }) == "slug");
  CHECK(refused([](Target& t) { t.slug = std::string(41, 'a'); }) == "slug");
  CHECK(refused([](Target& t) { t.url = ""; }) == "url");
  CHECK(refused([](Target& t) { t.port = 65536; }) == "port");
  CHECK(refused([](Target& t) { t.port = -1; }) == "port");
  CHECK(refused([](Target& t) { t.timeout_ms = 999; }) == "timeout_ms");
  CHECK(refused([](Target& t) { t.timeout_ms = 3600001; }) == "timeout_ms");
  CHECK(refused([](Target& t) { t.max_concurrency = 0; }) == "max_concurrency");
  CHECK(refused([](Target& t) { t.max_concurrency = 10001; }) == "max_concurrency");
  CHECK(refused([](Target& t) { t.health_path = "x"; }) == "health_path");
  CHECK(refused([](Target& t) { t.health_path = "/a b"; }) == "health_path");
  CHECK(refused([](Target& t) { t.args.assign(101, "x"); }) == "args");
  CHECK(refused([](Target& t) { t.args = {std::string(4001, 'x')}; }) == "args");
  CHECK(refused([](Target& t) { t.args = {std::string("a\0b", 3)}; }) == "args");
  CHECK(refused([](Target& t) { t.command = "a\nb"; }) == "command");
  CHECK(refused([](Target& t) { t.command = std::string(501, 'x'); }) == "command");
  CHECK(refused([](Target& t) { t.image = "A b"; }) == "image");
  CHECK(refused([](Target& t) { t.auth_type = AuthType::header; }) == "auth_header_name");
  CHECK(refused([](Target& t) { t.auth_header_name = "a b"; }) == "auth_header_name");
  CHECK(refused([](Target& t) { t.auth_header_name = "mcp-session-id"; }) == "auth_header_name");
  CHECK(refused([](Target& t) { t.auth_header_name = "X-Api-Key"; }) == "ok");
  CHECK(refused([](Target& t) { t.auth_header_name = "Authorization"; }) == "ok");
  CHECK(refused([](Target& t) { t.forward_headers = {"X-Tenant"}; }) == "ok");
  CHECK(refused([](Target& t) { t.forward_headers = {"authorization"}; }) == "forward_headers");
  CHECK(refused([](Target& t) { t.forward_headers = {"Proxy-Authorization"}; }) == "forward_headers");
  CHECK(refused([](Target& t) { t.forward_headers = {"X-A", "x-a"}; }) == "forward_headers");
  CHECK(refused([](Target& t) { t.forward_headers = {"X-A\r\nB: c"}; }) == "forward_headers");
  CHECK(refused([](Target& t) { t.user_env_keys = {"*", "A_B", "PATH"}; }) == "ok");
  CHECK(refused([](Target& t) { t.user_env_keys = {"A B"}; }) == "user_env_keys");

  Target target = http_target();
  target.port = 0;
  REQUIRE(validate_target(target, rules));
  CHECK(target.port == 8080);
}

TEST_CASE("targets: what a transport needs") {
  TargetRules rules;
  Target target;
  target.name = "t";
  target.transport_type = TransportType::stdio;
  CHECK(field(validate_target(target, rules)) == "command");
  target.command = "  ";
  CHECK(field(validate_target(target, rules)) == "command");
  target.command = "server";
  CHECK(field(validate_target(target, rules)) == "ok");
  rules.stdio_allowed_commands = {"serve"};
  CHECK(reason(validate_target(target, rules)) == "command_not_allowed");
  rules.stdio_enabled = false;
  CHECK(reason(validate_target(target, rules)) == "transport_disabled");
  target.transport_type = TransportType::kubernetes;
  CHECK(field(validate_target(target, rules)) == "image");
  target.image = "a/b";
  CHECK(field(validate_target(target, rules)) == "ok");
  target.transport_type = TransportType::sse;
  CHECK(field(validate_target(target, rules)) == "url");
}

TEST_CASE("targets: TLS") {
  const TargetRules rules;
  const auto check = [&](const std::string& ca, const std::string& cert, const std::string& key) {
    Target target = http_target();
    target.tls = TargetTls{ca, true, cert, key};
    const auto status = validate_target(target, rules);
    // Neither texts nor keys come back in an error.
    if (!status) CHECK(status.error().message.find("A\n") == std::string::npos);
    return field(status);
  };
  CHECK(check("", "", "") == "ok");
  CHECK(check(kCert + kCert, kCert, kKey) == "ok");
  CHECK(check("x", "", "") == "tls");
  CHECK(check(kKey, "", "") == "tls");
  CHECK(check("", kCert + kKey, kKey) == "tls");
  CHECK(check("", kCert, "") == "tls");
  CHECK(check("", "", kKey) == "tls");
  CHECK(check("", kCert, "x") == "tls");
  CHECK(check("", kCert, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nA\n-----END ENCRYPTED PRIVATE KEY-----") ==
        "tls");
  CHECK(check(kCert + std::string(256 * 1024, 'x'), "", "") == "tls");
}

TEST_CASE("slugs are derived as documented") {
  CHECK(derive_slug("My  Server") == "my-server");
  CHECK(derive_slug("A.b_c-d") == "a-b-c-d");
  CHECK(derive_slug("a...") == "a");
  CHECK(derive_slug(std::string(60, 'X')) == std::string(40, 'x'));
  CHECK(numbered_slug("abc", 2) == "abc-2");
  CHECK(numbered_slug(std::string(40, 'x'), 12) == std::string(37, 'x') + "-12");
}

TEST_CASE("headers that no setting may name") {
  for (const char* name : {"host",
                           "Content-Type",
                           "CONTENT-LENGTH",
                           "transfer-encoding",
                           "TE",
                           "Trailer",
                           "Connection",
                           "Keep-Alive",
                           "Upgrade",
                           "Accept",
                           "Accept-Encoding",
                           "Origin",
                           "Cookie",
                           "Mcp-Session-Id",
                           "mcp-protocol-version",
                           "MCP-Anything",
                           "Last-Event-ID",
                           "traceparent",
                           "tracestate",
                           "X-Forwarded-For",
                           "Forwarded"}) {
    CAPTURE(name);
    CHECK(is_forbidden_header(name));
    CHECK(is_forbidden_header(name, true));
  }
  for (const char* name : {"Authorization", "Proxy-Authorization"}) {
    CHECK_FALSE(is_forbidden_header(name));
    CHECK(is_forbidden_header(name, true));
  }
  for (const char* name : {"X-Api-Key", "Accept-Language", "Hostname", "Cookie2", "Tea"})
    CHECK_FALSE(is_forbidden_header(name, true));
}

TEST_CASE("R89: protected environment keys") {
  for (const char* key : {"PATH",
                          "path",
                          "HOME",
                          "SHELL",
                          "IFS",
                          "ENV",
                          "BASH_ENV",
                          "LD_PRELOAD",
                          "ld_library_path",
                          "DYLD_X",
                          "NODE_OPTIONS",
                          "NPM_CONFIG",
                          "PYTHONPATH",
                          "PythonStartup",
                          "PIP_INDEX_URL",
                          "UV_INDEX",
                          "PERL5LIB",
                          "RUBYOPT",
                          "GEM_HOME",
                          "BUNDLE_X",
                          "JAVA_TOOL_OPTIONS",
                          "JDK_JAVA_OPTIONS",
                          "_JAVA_OPTIONS",
                          "CLASSPATH",
                          "DOTNET_X",
                          "DENO_DIR",
                          "BUN_X",
                          "YARN_X",
                          "GOPROXY",
                          "GONOPROXY",
                          "GIT_SSH_COMMAND",
                          "SSH_AUTH_SOCK",
                          "SSL_CERT_FILE",
                          "OPENSSL_CONF",
                          "HTTP_PROXY",
                          "https_proxy",
                          "ALL_PROXY",
                          "XDG_CONFIG_HOME",
                          "TMPDIR",
                          "GCONV_PATH",
                          "LOCPATH"}) {
    CAPTURE(key);
    CHECK(is_protected_env_key(key));
  }
  for (const char* key : {"AUTH_TOKEN", "API_KEY", "PATHS", "MY_PATH", "HOMES", "GO", "GOPROX", "PROXY",
                          "LDX", "ENVIRONMENT", "BASHX", "XPYTHON"}) {
    CAPTURE(key);
    CHECK_FALSE(is_protected_env_key(key));
  }
}

TEST_CASE("R57: environment keys and values") {
  const auto http = [](std::string_view key, std::string_view value) {
    return reason(validate_env(key, value, false, 3600000));
  };
  const auto process = [](std::string_view key, std::string_view value) {
    return reason(validate_env(key, value, true, 3600000));
  };
  for (const std::string& bad : {std::string(), std::string("1A"), std::string("A-B"), std::string("A B"),
                                 std::string("A="), std::string("É"), std::string(129, 'A')})
    CHECK(http(bad, "v") == "invalid_key");
  CHECK(http("_a9", "v") == "ok");
  CHECK(http(std::string(128, 'A'), "v") == "ok");
  CHECK(http("A", "") == "invalid_value");
  CHECK(http("A", std::string(32768, 'x')) == "ok");
  CHECK(http("A", std::string(32769, 'x')) == "invalid_value");
  CHECK(http("A", "grün") == "ok");
  for (const std::string& bad : {std::string("a\rb"), std::string("a\nb"), std::string("a\tb"),
                                 std::string("a\0b", 3), std::string("\x7f"), std::string("\xff")})
    CHECK(http("A", bad) == "invalid_value");
  CHECK(process("A", "a\n\tb") == "ok");
  CHECK(process("A", std::string("a\0b", 3)) == "invalid_value");
  CHECK(process("A", "a\x1b") == "invalid_value");
  CHECK(http("BASE_URL", "https://h/x") == "ok");
  CHECK(http("BASE_URL", "https://u@h/x") == "invalid_value");
  CHECK(process("BASE_URL", "anything") == "ok");
  CHECK(http("AUTH_HEADER", "X-Key") == "ok");
  CHECK(http("AUTH_HEADER", "Host") == "invalid_value");
  CHECK(http("AUTH_HEADER", "a b") == "invalid_value");
  CHECK(http("TIMEOUT", "30s") == "ok");
  CHECK(http("TIMEOUT", "1h") == "ok");
  CHECK(http("TIMEOUT", "1h1ns") == "ok");  // below what is counted
  for (const char* bad : {"30", "0.5s", "1h1s", "-5s", "x", "1d"})
    CHECK(http("TIMEOUT", bad) == "invalid_value");
}

TEST_CASE("Go durations") {
  using std::chrono::microseconds;
  const auto us = [](std::string_view text) {
    const auto value = parse_go_duration(text);
    return value ? value->count() : -999;
  };
  CHECK(us("0") == 0);
  CHECK(us("1s") == 1000000);
  CHECK(us("1h2m3s") == 3723000000);
  CHECK(us("1.5s") == 1500000);
  CHECK(us(".5s") == 500000);
  CHECK(us("1.s") == 1000000);
  CHECK(us("250ms") == 250000);
  CHECK(us("7us") == 7);
  CHECK(us("7\xc2\xb5s") == 7);
  CHECK(us("7\xce\xbcs") == 7);
  CHECK(us("2500ns") == 2);
  CHECK(us("-1s") == -1000000);
  CHECK(us("+1s") == 1000000);
  CHECK(us("2562047h") == 2562047ll * 3600 * 1000000);
  for (const char* bad : {"", "-", "1", "s", ".s", "1 s", "1x", "1s1", "--1s", "1e3s", "9999999999999999999h",
                          "2562048h", "9223372036854775808ns"}) {
    CAPTURE(bad);
    CHECK(us(bad) == -999);
  }
}

TEST_CASE("words of enumerations") {
  CHECK(to_text(TransportType::streamable_http) == "streamable-http");
  CHECK(parse_text<TransportType>("kubernetes") == TransportType::kubernetes);
  CHECK_FALSE(parse_text<TransportType>("SSE"));
  CHECK(parse_text<AuthType>("") == AuthType::none);
  CHECK_FALSE(parse_text<Isolation>(""));
  CHECK_FALSE(parse_text<Isolation>("global"));  // R63
  CHECK(to_text(Scope::everyone) == "default");
  CHECK(parse_text<Scope>("default") == Scope::everyone);
  CHECK(parse_text<PrefixMode>("auto") == PrefixMode::automatic);
  CHECK(parse_text<EraSetting>("modern") == EraSetting::modern);
  for (const auto value : {Effect::allow, Effect::deny}) CHECK(parse_text<Effect>(to_text(value)) == value);
  for (const auto value : {SubjectType::user, SubjectType::role, SubjectType::group, SubjectType::everyone})
    CHECK(parse_text<SubjectType>(to_text(value)) == value);
}
