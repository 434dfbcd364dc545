#include "admin/router.hpp"

#include <algorithm>

#include "admin/routes.hpp"
#include "base/text.hpp"
#include "json/raw.hpp"
#include "json/redact.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kApiDepth = 32;
constexpr std::size_t kMaxPage = 1000;

int status_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::invalid_argument:
      return 400;
    case ErrorCode::unauthenticated:
      return 401;
    case ErrorCode::permission_denied:
      return 403;
    case ErrorCode::not_found:
      return 404;
    case ErrorCode::conflict:
      return 409;
    case ErrorCode::precondition_failed:
      return 412;
    case ErrorCode::resource_exhausted:
      return 429;
    case ErrorCode::unsupported:
      return 400;
    case ErrorCode::unavailable:
      return 503;
    case ErrorCode::deadline_exceeded:
      return 504;
    case ErrorCode::cancelled:
    case ErrorCode::data_loss:
    case ErrorCode::internal:
      return 500;
  }
  return 500;
}

bool has_type(const Json& value, Field::Type type) {
  const auto all = [&](bool (*check)(const Json&)) {
    return value.is_array() && std::all_of(value.begin(), value.end(), check);
  };
  switch (type) {
    case Field::Type::string:
      return value.is_string();
    case Field::Type::boolean:
      return value.is_boolean();
    case Field::Type::integer:
      return value.is_number_integer();
    case Field::Type::strings:
      return all([](const Json& one) { return one.is_string(); });
    case Field::Type::object:
      return value.is_object();
    case Field::Type::objects:
      return all([](const Json& one) { return one.is_object(); });
  }
  return false;
}

const char* name_of(Field::Type type) {
  switch (type) {
    case Field::Type::string:
      return "a string";
    case Field::Type::boolean:
      return "true or false";
    case Field::Type::integer:
      return "an integer";
    case Field::Type::strings:
      return "an array of strings";
    case Field::Type::object:
      return "an object";
    case Field::Type::objects:
      return "an array of objects";
  }
  return "";
}

bool has_nul(const Json& value) {
  if (value.is_string()) return value.get_ref<const std::string&>().find('\0') != std::string::npos;
  if (value.is_array() || value.is_object()) return std::any_of(value.begin(), value.end(), has_nul);
  return false;
}

std::optional<HttpResponse> check_body(const Schema& schema, const Json& body) {
  for (const Field& field : schema) {
    const auto it = body.find(field.name);
    if (it == body.end() || it->is_null()) {
      if (!field.required) continue;
      return failure(400, "invalid_request", std::string(field.name) + " is required", field.name);
    }
    if (!has_type(*it, field.type))
      return failure(400, "invalid_request", std::string(field.name) + " must be " + name_of(field.type),
                     field.name);
    if (has_nul(*it))
      return failure(400, "invalid_request", std::string(field.name) + " must not contain NUL", field.name);
  }
  return std::nullopt;
}

bool json_type(const std::string& header) {
  const std::string_view type = trim(std::string_view(header).substr(0, header.find(';')));
  return iequals(type, "application/json") || iequals(type, "*/*") ||
         (type.size() > 5 && iequals(type.substr(type.size() - 5), "+json"));
}

/// The segments of a path, each decoded by itself; nullopt when one is malformed.
std::optional<std::vector<std::string>> segments(std::string_view path) {
  std::vector<std::string> out;
  for (const std::string& part : split(path.substr(1), '/')) {
    auto decoded = percent_decode(part);
    if (!decoded || !is_utf8(*decoded) || decoded->find('\0') != std::string::npos) return std::nullopt;
    out.push_back(std::move(*decoded));
  }
  return out;
}

/// Whether the template fits, and the values of its placeholders.
bool fits(std::string_view pattern, const std::vector<std::string>& path, std::vector<std::string>& values) {
  values.clear();
  const auto parts = split(pattern.substr(1), '/');
  if (parts.size() != path.size()) return false;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].starts_with('{')) {
      if (path[i].empty()) return false;
      values.push_back(path[i]);
    } else if (parts[i] != path[i]) {
      return false;
    }
  }
  return true;
}

/// Literal segments before placeholders: "tokens/default" is not "tokens/{id}".
bool more_literal(const Route& a, const Route& b) {
  return std::count(a.path, a.path + std::char_traits<char>::length(a.path), '{') <
         std::count(b.path, b.path + std::char_traits<char>::length(b.path), '{');
}

}  // namespace

bool Call::has(const char* name) const {
  const auto it = body.find(name);
  return it != body.end() && !it->is_null();
}

std::string Call::text(const char* name) const { return text_if(name).value_or(""); }

std::optional<std::string> Call::text_if(const char* name) const {
  const auto it = body.find(name);
  if (it == body.end() || !it->is_string()) return std::nullopt;
  return it->get<std::string>();
}

HttpResponse json_response(int status, const Json& value) {
  HttpResponse out;
  out.status = status;
  out.headers.emplace_back("Content-Type", "application/json");
  out.body = dump_json(value);
  return out;
}

HttpResponse no_content() {
  HttpResponse out;
  out.status = 204;
  return out;
}

HttpResponse failure(int status, std::string reason, std::string message, std::string field) {
  Json body{{"error", std::move(message)}, {"code", std::move(reason)}};
  if (!field.empty()) body["field"] = std::move(field);
  HttpResponse out = json_response(status, body);
  if (status == 429)
    out.headers.emplace_back("Retry-After", std::to_string(Authenticator::kRetryAfterSeconds));
  if (status == 503) out.headers.emplace_back("Retry-After", "5");
  return out;
}

HttpResponse failure(const Error& error) {
  const int status = status_of(error);
  if (status == 500) return failure(500, "internal", "Something went wrong inside the gateway");
  if (error.code == ErrorCode::conflict && error.reason == "version_conflict")
    return failure(503, "storage_unavailable", "Too many writes at once: try again");
  return failure(status, error.reason, error.message, error.field);
}

HttpResponse object_response(int status, const Json& value, std::uint64_t version) {
  HttpResponse out = json_response(status, value);
  out.headers.emplace_back("ETag", "\"" + std::to_string(version) + "\"");
  return out;
}

HttpResponse list_response(const Call& call, std::vector<Json> items) {
  const auto number = [&](const char* name, std::int64_t low, std::int64_t high,
                          std::optional<std::int64_t>& out) -> std::optional<HttpResponse> {
    const auto text = query_value(call.request.query(), name);
    if (!text) return std::nullopt;
    out = raw::int_value(*text);
    if (out && *out >= low && *out <= high) return std::nullopt;
    return failure(400, "invalid_request", std::string(name) + " is out of range", name);
  };
  std::optional<std::int64_t> limit, offset;
  if (auto bad = number("limit", 1, kMaxPage, limit)) return *bad;
  if (auto bad = number("offset", 0, 1000000000, offset)) return *bad;
  const std::size_t total = items.size();
  const std::size_t from = std::min<std::size_t>(static_cast<std::size_t>(offset.value_or(0)), total);
  const std::size_t count = std::min(
      {limit ? static_cast<std::size_t>(*limit) : call.api.list_max, call.api.list_max, total - from});
  Json page = Json::array();
  for (std::size_t i = from; i < from + count; ++i) page.push_back(std::move(items[i]));
  HttpResponse out = json_response(200, page);
  out.headers.emplace_back("X-Total-Count", std::to_string(total));
  if (from + count < total)
    out.headers.emplace_back("Link", "<" + std::string(call.request.path()) +
                                         "?limit=" + std::to_string(count) +
                                         "&offset=" + std::to_string(from + count) + ">; rel=\"next\"");
  return out;
}

Result<std::optional<std::uint64_t>> if_match(const Call& call, std::uint64_t current) {
  const std::string* header = call.request.header("If-Match");
  if (header == nullptr) return std::optional<std::uint64_t>();
  const std::string own = "\"" + std::to_string(current) + "\"";
  for (const std::string& tag : split(*header, ','))
    if (trim(tag) == "*" || trim(tag) == own) return std::optional<std::uint64_t>(current);
  return Error(ErrorCode::precondition_failed, "precondition_failed",
               "The object has changed since it was read: read it again");
}

std::optional<HttpResponse> check_id(std::string_view value) {
  if (is_uuid(value)) return std::nullopt;
  return failure(400, "invalid_id", "The id is not a UUID");
}

const std::vector<Route>& route_table() {
  static const std::vector<Route> table = [] {
    std::vector<Route> out;
    for (const auto& group : {auth_routes(), user_routes(), target_routes(), token_routes(), policy_routes(),
                              env_routes(), log_routes()})
      out.insert(out.end(), group.begin(), group.end());
    std::stable_sort(out.begin(), out.end(), more_literal);
    return out;
  }();
  return table;
}

}  // namespace mcpgw::detail

namespace mcpgw {

using namespace detail;

class AdminApi::Impl {
 public:
  explicit Impl(AdminApiOptions o) : options(std::move(o)) {}

  HttpResponse handle(const HttpRequest& request) {
    std::vector<std::string> values;
    const auto path = segments(request.path());
    if (!path) return failure(400, "invalid_path", "The path is not valid");
    const Route* route = nullptr;
    const std::string method = request.method == "HEAD" ? "GET" : request.method;
    std::string allow;
    std::vector<std::string> own_values;
    std::size_t placeholders = std::string::npos;
    for (const Route& one : route_table()) {
      if (!fits(one.path, *path, values)) continue;
      // Only the most literal template that fits is this path's.
      if (placeholders != std::string::npos && values.size() > placeholders) break;
      placeholders = values.size();
      allow += std::string(one.method) + ", ";
      if (std::string_view(one.method) == "GET") allow += "HEAD, ";
      if (one.method == method) {
        route = &one;
        own_values = values;
      }
    }
    if (allow.empty()) return failure(404, "not_found", "There is nothing at this path");
    if (route == nullptr) {
      HttpResponse out = request.method == "OPTIONS"
                             ? no_content()
                             : failure(405, "method_not_allowed", "This method is not offered here");
      out.headers.emplace_back("Allow", allow + "OPTIONS");
      return out;
    }
    Call call{options, request, {}, std::move(own_values), Json::object(), {}, {}};
    call.audit.created_at = options.repository->clock().now();
    HttpResponse out = answer(*route, call);
    if (route->audited != Audited::no) audit(*route, call, out);
    return out;
  }

 private:
  HttpResponse answer(const Route& route, Call& call) {
    if (route.who != Who::everyone) {
      if (auto refused = authenticate(route, call)) return std::move(*refused);
    }
    if (auto refused = read_body(route, call)) return std::move(*refused);
    return route.handler(call);
  }

  std::optional<HttpResponse> authenticate(const Route& route, Call& call) {
    const std::string* header = call.request.header("Authorization");
    auto principal = options.authenticator->authenticate(header == nullptr ? std::string_view() : *header);
    if (!principal) {
      HttpResponse out = failure(principal.error());
      std::string challenge = R"(Bearer realm="mcpgw")";
      if (header != nullptr) challenge += R"(, error="invalid_token")";
      out.headers.emplace_back("WWW-Authenticate", std::move(challenge));
      return out;
    }
    call.principal = std::move(*principal);
    if (!call.principal.token_id.empty()) options.repository->touch_token(call.principal.token_id);
    if (!call.principal.has_scope("api")) {
      HttpResponse out = failure(403, "insufficient_scope", "The token does not have the scope api");
      out.headers.emplace_back("WWW-Authenticate",
                               R"(Bearer realm="mcpgw", error="insufficient_scope", scope="api")");
      return out;
    }
    if (route.who == Who::admin && !call.principal.is_admin())
      return failure(403, "admin_required", "Only an administrator may do this");
    return std::nullopt;
  }

  std::optional<HttpResponse> read_body(const Route& route, Call& call) {
    const HttpRequest& request = call.request;
    if (request.body.size() > options.body_max)
      return failure(413, "body_too_large", "The request body is too large");
    if (request.method == "GET" || request.method == "HEAD") return std::nullopt;
    if (request.body.empty()) {
      const bool needed =
          route.schema != nullptr &&
          (request.method == "PUT" || std::any_of(route.schema->begin(), route.schema->end(),
                                                  [](const Field& field) { return field.required; }));
      if (!needed) return std::nullopt;
      return failure(400, "invalid_json", "A JSON object is required as the body");
    }
    if (const std::string* type = request.header("Content-Type"); type != nullptr && !json_type(*type))
      return failure(415, "unsupported_media_type", "The request body must be application/json");
    auto body = parse_json(request.body, kApiDepth);
    if (!body) return failure(400, "invalid_json", "The body is not valid JSON");
    if (!body->is_object()) return failure(400, "invalid_request", "The body must be a JSON object");
    call.body = std::move(*body);
    if (route.schema == nullptr) return std::nullopt;
    return check_body(*route.schema, call.body);
  }

  void audit(const Route& route, Call& call, const HttpResponse& response) {
    // Who is unknown, or comes too often, is counted but leaves no row; a failed login does.
    if (response.status == 429 || (response.status == 401 && route.who != Who::everyone)) return;
    AuditRecord row = std::move(call.audit);
    row.kind = route.audited == Audited::auth ? "auth" : "admin";
    row.method = std::string(route.method) + " " + route.path;
    if (row.user_id.empty()) row.user_id = call.principal.user_id;
    if (row.user_email.empty()) row.user_email = call.principal.email;
    row.response_status = response.status;
    row.client_ip = call.request.remote_address;
    row.bytes_in = static_cast<std::int64_t>(call.request.body.size());
    row.bytes_out = static_cast<std::int64_t>(response.body.size());
    row.duration_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                          options.repository->clock().now() - row.created_at)
                          .count();
    if (response.status >= 400) {
      const auto body = parse_json(response.body);
      if (body && body->contains("code")) row.error_code = (*body)["code"].get<std::string>();
    }
    if (options.audit_bodies) {
      RedactRules rules;
      rules.secret_names = call.secret_names;
      rules.max_bytes = options.audit_body_max;
      rules.method = row.method;
      row.request_body = redact_body(call.request.body, rules);
    }
    options.live->audit(std::move(row));
  }

  const AdminApiOptions options;
};

AdminApi::AdminApi(AdminApiOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
AdminApi::~AdminApi() = default;

HttpResponse AdminApi::handle(const HttpRequest& request, const std::string& request_id) {
  HttpResponse out = impl_->handle(request);
  if (out.status >= 400 && !out.body.empty())
    out.body = raw::with_member(out.body, "request_id", raw::quote(request_id));
  out.set_header("X-Request-Id", request_id);
  out.set_header("Cache-Control", "no-store");
  out.set_header("X-Content-Type-Options", "nosniff");
  return out;
}

bool AdminApi::hashes_password(std::string_view method, std::string_view path) noexcept {
  if (method == "POST")
    return path == "/api/auth/login" || path == "/api/auth/register" || path == "/api/auth/password" ||
           path == "/api/users";
  return method == "PUT" && path.starts_with("/api/users/");
}

std::vector<AdminApi::RouteInfo> AdminApi::routes() {
  std::vector<RouteInfo> out;
  for (const Route& route : route_table())
    out.push_back({route.method, route.path,
                   route.who == Who::everyone ? "public"
                   : route.who == Who::user   ? "user"
                                              : "admin"});
  return out;
}

}  // namespace mcpgw
