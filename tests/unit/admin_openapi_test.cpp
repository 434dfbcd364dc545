// R93: docs/openapi.yaml and the API agree in both directions: routes, rights, declared bodies, answers.
#include <yaml-cpp/yaml.h>

#include <set>

#include "admin/router.hpp"
#include "admin_support.hpp"
#include "base/text.hpp"

using namespace mcpgw;
using namespace mcpgw::admin_test;

namespace {

Json to_json(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Sequence: {
      Json out = Json::array();
      for (const auto& element : node) out.push_back(to_json(element));
      return out;
    }
    case YAML::NodeType::Map: {
      Json out = Json::object();
      for (const auto& member : node) {
        const std::string name = member.first.as<std::string>();
        REQUIRE_MESSAGE(!out.contains(name), "twice: " << name);
        out[name] = to_json(member.second);
      }
      return out;
    }
    case YAML::NodeType::Scalar: {
      const std::string text = node.Scalar();
      if (node.Tag() == "!") return text;  // quoted
      if (text == "true" || text == "false") return text == "true";
      if (text == "null" || text == "~") return nullptr;
      const auto number = detail::parse_json(text);
      return number && number->is_number() ? *number : Json(text);
    }
    default:
      return nullptr;
  }
}

const Json& document() {
  static const Json out = to_json(YAML::LoadFile(MCPGW_SOURCE_DIR "/docs/openapi.yaml"));
  return out;
}

/// What a $ref points to.
const Json& resolved(const Json& value) {
  if (!value.is_object() || !value.contains("$ref")) return value;
  const std::string ref = value["$ref"];
  REQUIRE(ref.starts_with("#/"));
  const Json::json_pointer pointer(ref.substr(1));
  REQUIRE_MESSAGE(document().contains(pointer), ref);
  return document()[pointer];
}

/// What of `value` does not fit `schema`; empty when it fits. Members that the schema does not name do not
/// fit.
std::string misfit(const Json& given, const Json& value, const std::string& at) {
  const Json& schema = resolved(given);
  for (const char* choice : {"anyOf", "oneOf"}) {
    if (!schema.contains(choice) || schema.contains("type")) continue;
    const Json& forms = schema[choice];
    const bool fits = std::any_of(forms.begin(), forms.end(),
                                  [&](const Json& one) { return misfit(one, value, at).empty(); });
    return fits ? "" : at + " has none of the forms";
  }
  if (value.is_null()) return schema.value("nullable", false) ? "" : at + " is null";
  const std::string type = schema.value("type", "");
  // An event stream is a text to some readers and events to others: its schema leaves that open, no other
  // may.
  if (type.empty())
    return value.is_string() && at.ends_with("text/event-stream") ? "" : at + " has a schema without a type";
  const bool right = (type == "string" && value.is_string()) || (type == "boolean" && value.is_boolean()) ||
                     (type == "integer" && value.is_number_integer()) ||
                     (type == "number" && value.is_number()) || (type == "array" && value.is_array()) ||
                     (type == "object" && value.is_object());
  if (!right) return at + " is no " + type;
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end())
    return at + " is none of the words: " + value.dump();
  const std::string format = schema.value("format", "");
  if (format == "uuid" && !detail::is_uuid(value.get_ref<const std::string&>())) return at + " is no UUID";
  if (format == "date-time") {
    const auto time = detail::parse_time(value.get_ref<const std::string&>());
    if (!time || detail::format_time(*time) != value.get_ref<const std::string&>())
      return at + " is no time with six digits";
  }
  if (type == "array") {
    for (const Json& element : value)
      if (auto bad = misfit(schema["items"], element, at + "[]"); !bad.empty()) return bad;
  }
  if (type == "object") {
    for (const Json& name : schema.value("required", Json::array()))
      if (!value.contains(name.get<std::string>())) return at + "." + std::string(name) + " is missing";
    for (const auto& [name, member] : value.items()) {
      if (schema.contains("properties") && schema["properties"].contains(name)) {
        if (auto bad = misfit(schema["properties"][name], member, at + "." + name); !bad.empty()) return bad;
      } else if (!schema.contains("additionalProperties")) {
        return at + "." + name + " is not documented";
      }
    }
  }
  return "";
}

std::string lower(const std::string& method) { return detail::to_lower(method); }

/// Every object below `value`, for checks of the whole document.
void each(const Json& value, const std::string& at,
          const std::function<void(const Json&, const std::string&)>& see) {
  if (value.is_object()) see(value, at);
  if (value.is_object())
    for (const auto& [name, member] : value.items()) each(member, at + "/" + name, see);
  if (value.is_array())
    for (const Json& element : value) each(element, at + "/[]", see);
}

const char* type_name(detail::Field::Type type) {
  using T = detail::Field::Type;
  switch (type) {
    case T::text:
    case T::word:
      return "string";
    case T::boolean:
      return "boolean";
    case T::integer:
      return "integer";
    case T::texts:
    case T::objects:
      return "array";
    case T::object:
    case T::text_map:
      return "object";
  }
  return "";
}

void same_members(const detail::Schema& fields, const Json& given, const std::string& at) {
  const Json& schema = resolved(given);
  std::set<std::string> known, documented, required;
  for (const auto& [name, member] : schema["properties"].items()) documented.insert(name);
  for (const Json& name : schema.value("required", Json::array())) required.insert(name.get<std::string>());
  for (const detail::Field& field : fields) {
    const std::string where = at + "." + field.name;
    CAPTURE(where);
    known.insert(field.name);
    REQUIRE(documented.count(field.name) == 1);
    const Json& member = resolved(schema["properties"][field.name]);
    CHECK(member["type"] == type_name(field.type));
    CHECK((required.count(field.name) == 1) == field.is_required);
    // null for an optional member means that it is absent, or clears.
    CHECK(member.value("nullable", false) == !field.is_required);
    if (field.type == detail::Field::Type::word) {
      std::set<std::string> words(field.words.begin(), field.words.end()), told;
      for (const Json& word : member["enum"])
        if (!word.is_null()) told.insert(word.get<std::string>());
      CHECK(words == told);
    }
    if (field.type == detail::Field::Type::integer) {
      CHECK(member["minimum"] == field.low);
      CHECK(member["maximum"] == field.high);
    }
    if (field.is_secret && field.type == detail::Field::Type::text) CHECK(member["writeOnly"] == true);
    if (field.type == detail::Field::Type::texts) CHECK(member["items"]["type"] == "string");
    if (field.type == detail::Field::Type::object) same_members(*field.members, member, where);
    if (field.type == detail::Field::Type::objects) same_members(*field.members, member["items"], where);
  }
  CHECK(known == documented);
}

/// Calls the API and holds every answer against the document.
struct Checked {
  Api& api;
  std::set<std::string> succeeded;

  Json operator()(const std::string& who, const std::string& method, const std::string& path, int status,
                  const std::map<std::string, std::string>& values = {}, const std::string& body = {},
                  const HttpHeaders& headers = {}) {
    CAPTURE(method);
    CAPTURE(path);
    const Json& operation = document()["paths"][path.substr(0, path.find('?'))][lower(method)];
    const auto answer = api.call(who, method, fill(path, values), body, headers);
    CHECK_MESSAGE(answer.status == status, answer.body);
    REQUIRE_MESSAGE(operation["responses"].contains(std::to_string(answer.status)), answer.status);
    const Json& response = resolved(operation["responses"][std::to_string(answer.status)]);
    CHECK(response.contains("content") == !answer.body.empty());
    if (answer.status < 300) succeeded.insert(method + " " + path.substr(0, path.find('?')));
    const Json headers_told = response.value("headers", Json::object());
    for (const auto& [name, header] : headers_told.items())
      if (name != "Link") CHECK_MESSAGE(answer.header(name) != nullptr, name);
    for (const char* name : {"ETag", "Location", "X-Total-Count", "Link", "Retry-After", "Allow"})
      if (answer.header(name) != nullptr) CHECK_MESSAGE(headers_told.contains(name), name);
    if (answer.body.empty()) return nullptr;
    const Json value = Api::json(answer);
    const std::string bad = misfit(response["content"]["application/json"]["schema"], value, "body");
    CHECK_MESSAGE(bad.empty(), bad);
    return value;
  }
};

}  // namespace

TEST_CASE("R93: every route is documented, every operation is routed, with the same rights") {
  std::set<std::string> routed, documented;
  for (const auto& route : AdminApi::routes()) routed.insert(lower(route.method) + " " + route.path);
  for (const auto& [path, item] : document()["paths"].items())
    for (const auto& [method, operation] : item.items())
      if (path.starts_with("/api/")) documented.insert(method + " " + path);
  CHECK(routed == documented);
  std::set<std::string> others, ids;
  for (const auto& [path, item] : document()["paths"].items()) {
    if (!path.starts_with("/api/")) others.insert(path);
    for (const auto& [method, operation] : item.items()) {
      CAPTURE(path);
      CAPTURE(method);
      CHECK(ids.insert(operation["operationId"].get<std::string>()).second);
      CHECK(operation["tags"].size() == 1);
      CHECK_FALSE(operation["summary"].get<std::string>().empty());
    }
  }
  CHECK(others == std::set<std::string>{"/docs", "/docs/openapi.json", "/docs/openapi.yaml", "/health",
                                        "/mcp", "/metrics", "/ready", "/sse", "/version"});
  for (const auto& route : AdminApi::routes()) {
    CAPTURE(route.method);
    CAPTURE(route.path);
    const Json& operation = document()["paths"][route.path][lower(route.method)];
    CHECK(operation["x-mcpgw-who"] == route.who);
    CHECK(operation["security"].empty() == (route.who == "public"));
    for (const char* status : {"500", "503"}) CHECK(operation["responses"].contains(status));
    if (route.who != "public")
      for (const char* status : {"401", "403"}) CHECK(operation["responses"].contains(status));
    std::set<std::string> parameters, placeholders;
    for (const Json& parameter : operation.value("parameters", Json::array()))
      if (resolved(parameter)["in"] == "path")
        parameters.insert(resolved(parameter)["name"].get<std::string>());
    for (const std::string& part : detail::split(route.path, '/'))
      if (part.starts_with('{')) placeholders.insert(part.substr(1, part.size() - 2));
    CHECK(parameters == placeholders);
  }
}

TEST_CASE("R93: bodies are documented as the routes declare them") {
  for (const detail::Route& route : detail::route_table()) {
    CAPTURE(route.method);
    CAPTURE(route.path);
    const Json& operation = document()["paths"][route.path][lower(route.method)];
    CHECK(operation.contains("requestBody") == (route.schema != nullptr));
    if (route.schema == nullptr) continue;
    const Json& body = operation["requestBody"];
    const bool needed = std::string(route.method) == "PUT" ||
                        std::any_of(route.schema->begin(), route.schema->end(),
                                    [](const auto& field) { return field.is_required; });
    CHECK(body["required"] == needed);
    same_members(*route.schema, body["content"]["application/json"]["schema"], "body");
  }
}

TEST_CASE("links lead from what is made to what can be done with it") {
  std::map<std::string, std::set<std::string>> parameters;
  for (const auto& [path, item] : document()["paths"].items())
    for (const auto& [method, operation] : item.items()) {
      auto& names = parameters[operation["operationId"].get<std::string>()];
      for (const Json& parameter : operation.value("parameters", Json::array()))
        names.insert(resolved(parameter)["name"].get<std::string>());
    }
  std::set<std::string> sources;
  for (const auto& [path, item] : document()["paths"].items())
    for (const auto& [method, operation] : item.items())
      for (const auto& [status, response] : operation["responses"].items()) {
        const Json links = resolved(response).value("links", Json::object());
        for (const auto& [name, link] : links.items()) {
          CAPTURE(path);
          CAPTURE(name);
          sources.insert(operation["operationId"].get<std::string>());
          const auto known = parameters.find(link["operationId"].get<std::string>());
          REQUIRE(known != parameters.end());
          for (const auto& [parameter, expression] : link["parameters"].items()) {
            CHECK(known->second.count(parameter) == 1);
            CHECK(expression.get_ref<const std::string&>().starts_with("$re"));
          }
        }
      }
  for (const char* made :
       {"createUser", "createTarget", "createPolicy", "createToken", "addSubject", "setDefaultEnv"})
    CHECK_MESSAGE(sources.count(made) == 1, made);
}

TEST_CASE("the document is sound: references lead somewhere, examples fit their schemas") {
  CHECK(document()["openapi"] == "3.0.3");
  int references = 0, examples = 0;
  each(document(), "", [&](const Json& value, const std::string& at) {
    CAPTURE(at);
    if (value.contains("$ref")) {
      ++references;
      CHECK(value.size() == 1);
      CHECK_FALSE(resolved(value).is_null());
    }
    const bool is_schema = value.contains("type") && value["type"].is_string();
    if (is_schema && value.contains("example")) {
      ++examples;
      const std::string bad = misfit(value, value["example"], "example");
      CHECK_MESSAGE(bad.empty(), bad);
    }
    if (value.contains("schema") && value.contains("example")) {
      ++examples;
      const std::string bad = misfit(value["schema"], value["example"], at);
      CHECK_MESSAGE(bad.empty(), bad);
    }
  });
  CHECK(references > 300);
  CHECK(examples > 40);
}

TEST_CASE("every operation has an example of each parameter, of its body and of each answer") {
  const auto shown = [](const Json& content, const std::string& where) {
    REQUIRE_MESSAGE(!content.empty(), where);
    for (const auto& [type, media] : content.items()) {
      CAPTURE(type);
      const Json& schema = resolved(media["schema"]);
      const bool of_items =
          schema.value("type", "") == "array" && resolved(schema["items"]).contains("example");
      CHECK_MESSAGE((media.contains("example") || schema.contains("example") || of_items), where);
    }
  };
  for (const auto& [path, item] : document()["paths"].items())
    for (const auto& [method, operation] : item.items()) {
      const std::string where = method + " " + path;
      for (const Json& given : operation.value("parameters", Json::array())) {
        const Json& parameter = resolved(given);
        REQUIRE_MESSAGE(parameter.contains("example"), where);
        const std::string bad = misfit(parameter["schema"], parameter["example"], parameter["name"]);
        CHECK_MESSAGE(bad.empty(), where << ": " << bad);
      }
      if (operation.contains("requestBody")) shown(operation["requestBody"]["content"], where);
      for (const auto& [status, response] : operation["responses"].items()) {
        const Json content = resolved(response).value("content", Json::object());
        const bool body = status != "101" && status != "202" && status != "204" && status != "304";
        CHECK_MESSAGE(content.empty() != body, where << " " << status);
        if (body) shown(content, where + " " + status);
      }
    }
}

TEST_CASE("R93: what the API answers is what the document says, on every operation") {
  Api api;
  Checked call{api, {}};
  const std::string &admin = api.admin, &user = api.user;
  using Values = std::map<std::string, std::string>;
  call("", "POST", "/api/auth/register", 201, {}, R"({"email":"c@example.test","password":"correct horse"})");
  call("", "POST", "/api/auth/register", 409, {}, R"({"email":"c@example.test","password":"correct horse"})");
  call("", "POST", "/api/auth/register", 400, {}, R"({"email":"c","password":"correct horse"})");
  const Json in = call("", "POST", "/api/auth/login", 200, {},
                       R"({"email":"c@example.test","password":"correct horse"})");
  call("", "POST", "/api/auth/login", 401, {}, R"({"email":"c@example.test","password":"wrong"})");
  const std::string own = in["token"], own_id = in["user"]["id"];
  call(own, "GET", "/api/auth/me", 200);
  call("", "GET", "/api/auth/me", 401);
  const Json minted = call(own, "POST", "/api/auth/tokens", 201, {}, R"({"name":"ci","scopes":["mcp"]})");
  call(own, "GET", "/api/auth/tokens?limit=1", 200);
  call(own, "DELETE", "/api/auth/tokens/{id}", 204, {{"id", minted["api_token"]["id"]}});
  call(own, "DELETE", "/api/auth/tokens/{id}", 404);
  call(own, "POST", "/api/auth/password", 204, {},
       R"({"old_password":"correct horse","new_password":"battery staple"})");
  call(own, "POST", "/api/sessions/recycle", 200);
  call(own, "POST", "/api/auth/logout", 204);

  const Json made =
      call(admin, "POST", "/api/users", 201, {}, R"({"email":"d@example.test","password":"correct horse"})");
  const Values of_user{{"id", made["id"]}};
  call(user, "POST", "/api/users", 403, {}, "{}");
  call(admin, "POST", "/api/users", 415, {}, "{}", {{"Content-Type", "text/plain"}});
  call(admin, "POST", "/api/users", 413, {}, std::string(2 * 1024 * 1024, ' '));
  call(admin, "GET", "/api/users?limit=2", 200);
  call(admin, "GET", "/api/users", 200);
  call(admin, "GET", "/api/users/{id}", 200, of_user);
  call(admin, "PUT", "/api/users/{id}", 200, of_user, R"({"role":"dev","groups":["ops"]})");
  call(admin, "PUT", "/api/users/{id}", 412, of_user, "{}", {{"If-Match", "\"0\""}});
  call(admin, "PUT", "/api/users/{id}", 409, {{"id", api.admin_id}}, R"({"enabled":false})");
  api.token(made["id"], {"api"});
  const Json tokens = call(admin, "GET", "/api/users/{id}/tokens", 200, of_user);
  call(admin, "DELETE", "/api/users/{id}/tokens/{tokenId}", 204,
       {{"id", made["id"]}, {"tokenId", tokens[0]["id"]}});
  call(admin, "POST", "/api/users/{id}/recycle", 200, of_user);
  call(admin, "DELETE", "/api/users/{id}", 204, of_user);

  const Json target = call(
      admin, "POST", "/api/targets", 201, {},
      R"({"name":"tools","transport_type":"stdio","command":"npx","args":["x"],"port":80,"health_path":"/h",)"
      R"("image":"img","auth_type":"header","auth_header_name":"X-Key","forward_headers":["X-A"],)"
      R"("user_env_keys":["K"],"tls":{"verify":false}})");
  const Values of{{"id", target["id"]}, {"key", "K"}, {"role", "dev"}, {"group", "a%2Fb"}};
  call(admin, "POST", "/api/targets", 409, {}, R"({"name":"tools","url":"https://x.example"})");
  const Json policy =
      call(admin, "POST", "/api/policies", 201, {},
           R"({"name":"p","description":"d","effect":"allow","resource_type":"tool","resource_pattern":"^r",)"
           R"("target_id":")" +
               std::string(target["id"]) + R"(","subjects":[{"subject_type":"everyone"}]})");
  call(user, "GET", "/api/targets", 200);
  call(admin, "GET", "/api/targets", 200);
  call(user, "GET", "/api/targets/{id}", 200, of);
  call(admin, "GET", "/api/targets/{id}", 200, of);
  call(admin, "PUT", "/api/targets/{id}", 200, of, R"({"timeout_ms":5000})");
  call(admin, "POST", "/api/targets/{id}/restart-instances", 200, of);
  call(admin, "POST", "/api/targets/{id}/test", 200, of);

  call(user, "PUT", "/api/targets/{id}/token", 200, of, R"({"token":"t"})");
  call(user, "GET", "/api/targets/{id}/token", 200, of);
  call(admin, "GET", "/api/targets/{id}/token", 200, of);
  call(admin, "PUT", "/api/targets/{id}/tokens/role", 200, of, R"({"role":"dev","token":"t"})");
  call(admin, "PUT", "/api/targets/{id}/tokens/group", 200, of, R"({"group":"a/b","token":"t"})");
  call(admin, "PUT", "/api/targets/{id}/tokens/default", 200, of, R"({"token":"t"})");
  call(admin, "GET", "/api/targets/{id}/tokens", 200, of);
  call(admin, "DELETE", "/api/targets/{id}/tokens/role/{role}", 204, of);
  call(admin, "DELETE", "/api/targets/{id}/tokens/group/{group}", 204, of);
  call(user, "DELETE", "/api/targets/{id}/token", 204, of);

  for (const auto& [kind, value] :
       std::vector<std::pair<std::string, std::string>>{{"default", ""},
                                                        {"role/{scopeValue}", "user"},
                                                        {"group/{scopeValue}", "a%2Fb"},
                                                        {"user/{scopeValue}", api.user_id}}) {
    Values values = of;
    values["scopeValue"] = value;
    const std::string path = "/api/targets/{id}/env/" + kind;
    call(admin, "POST", path, 200, values, R"({"key":"K","value":"v","description":"d"})");
    call(admin, "POST", path, 400, values, R"({"key":"1","value":"v"})");
    call(admin, "PUT", path, 200, values, R"({"configs":{"L":"v"}})");
    call(admin, "GET", path, 200, values);
    if (kind == "default") call(user, "GET", "/api/targets/{id}/env/resolve", 200, values);
    call(user, "GET", "/api/targets/{id}/env", 200, values);
    call(admin, "GET", "/api/targets/{id}/env", 200, values);
    call(admin, "DELETE", path + "/{key}", 204, values);
    call(admin, "DELETE", path + "/{key}", 404, values);
  }
  call(admin, "DELETE", "/api/targets/{id}/tokens/default", 204, of);
  CHECK(call(admin, "PUT", "/api/targets/{id}", 200, of, R"({"command":"uvx","keep_credentials":false})")
            .contains("credentials_dropped"));

  const Values of_policy{{"id", policy["id"]}};
  call(user, "GET", "/api/policies", 200);
  call(admin, "GET", "/api/policies", 200);
  call(user, "GET", "/api/policies/{id}", 200, of_policy);
  call(admin, "PUT", "/api/policies/{id}", 200, of_policy, R"({"priority":5})");
  const std::string about = R"({"target_id":")" + std::string(target["id"]) + "\"";
  call(user, "POST", "/api/policies/evaluate", 200, {}, about + R"(,"resource_type":"tool","name":"read"})");
  call(admin, "POST", "/api/policies/evaluate", 200, {}, about + R"(,"resource_type":"tool","name":"x"})");
  const Json subject = call(admin, "POST", "/api/policies/{id}/subjects", 201, of_policy,
                            R"({"subject_type":"role","subject_value":"dev"})");
  call(admin, "POST", "/api/policies/{id}/subjects", 409, of_policy, R"({"subject_type":"everyone"})");
  call(admin, "DELETE", "/api/policies/{id}/subjects/{subjectId}", 204,
       {{"id", policy["id"]}, {"subjectId", subject["id"]}});
  call(admin, "DELETE", "/api/policies/{id}", 204, of_policy);
  call(admin, "DELETE", "/api/targets/{id}", 204, of);

  // The rows that all this has left, as a gateway's writer stores them.
  for (AuditRecord& row : api.live.rows) row.id = "r" + std::to_string(&row - api.live.rows.data());
  AuditRecord full = api.live.rows.back();
  full.id = "full";
  full.kind = "mcp";
  full.session_id = full.tool = full.target_name = full.client_name = full.trace_id = "x";
  full.decision = "deny";
  full.policy_id = full.policy_name = full.error_code = "x";
  full.request_body = R"({"method":"tools/call"})";
  api.live.rows.push_back(full);
  REQUIRE(api.sink->append(api.live.rows));
  CHECK(call(admin, "GET", "/api/logs?limit=1000", 200).size() > 40);
  call(user, "GET", "/api/logs?limit=1", 200);
  call(user, "GET", "/api/observability/ws", 426);
  call(user, "POST", "/api/observability/ticket", 201);

  std::set<std::string> missing;
  for (const auto& route : AdminApi::routes())
    if (!call.succeeded.count(route.method + " " + route.path))
      missing.insert(route.method + " " + route.path);
  // The snapshot is the gateway's own text, the WebSocket the gateway's own route.
  CHECK(missing == std::set<std::string>{"GET /api/observability/snapshot", "GET /api/observability/ws"});
}
