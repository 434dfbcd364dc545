#include "admin/router.hpp"

#include <algorithm>
#include <exception>

#include "admin/answers.hpp"
#include "admin/audit.hpp"
#include "admin/routes.hpp"
#include "base/text.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kApiDepth = 32;

/// One path template with the routes of its methods.
struct PathRoutes {
  std::string path;
  std::vector<std::string> parts;  ///< empty: a placeholder
  std::size_t placeholders = 0;
  std::vector<const Route*> routes;
  std::string allow;
};

/// Templates with fewer placeholders first: "tokens/default" is not "tokens/{id}".
const std::vector<PathRoutes>& paths() {
  static const std::vector<PathRoutes> table = [] {
    std::vector<PathRoutes> out;
    for (const Route& route : route_table()) {
      auto at = std::find_if(out.begin(), out.end(), [&](const auto& one) { return one.path == route.path; });
      if (at == out.end()) {
        PathRoutes one;
        one.path = route.path;
        for (std::string& part : split(std::string_view(route.path).substr(1), '/')) {
          const bool placeholder = part.starts_with('{');
          one.placeholders += placeholder ? 1 : 0;
          one.parts.push_back(placeholder ? std::string() : std::move(part));
        }
        at = out.insert(out.end(), std::move(one));
      }
      at->routes.push_back(&route);
      at->allow += std::string(route.method) + ", ";
      if (std::string_view(route.method) == "GET") at->allow += "HEAD, ";
    }
    for (PathRoutes& one : out) one.allow += "OPTIONS";
    std::stable_sort(out.begin(), out.end(),
                     [](const auto& a, const auto& b) { return a.placeholders < b.placeholders; });
    return out;
  }();
  return table;
}

struct Match {
  const PathRoutes* path = nullptr;  ///< null: there is nothing at this path
  std::vector<std::string> values;
  bool malformed = false;  ///< a placeholder's value is no valid text
};

Match find_path(std::string_view path) {
  Match out;
  if (!path.starts_with('/')) return out;
  // Split first, decode afterwards: %2F is a slash inside a value.
  std::vector<std::optional<std::string>> parts;
  for (const std::string& part : split(path.substr(1), '/')) {
    auto decoded = percent_decode(part);
    if (decoded && (!is_utf8(*decoded) || decoded->find('\0') != std::string::npos)) decoded.reset();
    parts.push_back(std::move(decoded));
  }
  for (const PathRoutes& one : paths()) {
    if (one.parts.size() != parts.size()) continue;
    bool fits = true;
    for (std::size_t i = 0; fits && i < parts.size(); ++i)
      fits = one.parts[i].empty() ? !parts[i] || !parts[i]->empty() : parts[i] == one.parts[i];
    if (!fits) continue;
    out.path = &one;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      if (!one.parts[i].empty()) continue;
      out.malformed |= !parts[i];
      out.values.push_back(parts[i].value_or(""));
    }
    break;
  }
  return out;
}

const Route* route_of(const PathRoutes& path, std::string_view method) {
  const std::string_view wanted = method == "HEAD" ? "GET" : method;
  for (const Route* route : path.routes)
    if (wanted == route->method) return route;
  return nullptr;
}

bool takes_body(const HttpRequest& request) {
  return request.method != "GET" && request.method != "HEAD" && !request.body.empty();
}

/// Size and media type.
std::optional<HttpResponse> check_entity(const Call& call) {
  if (call.request.body.size() > call.api.body_max)
    return failure(413, "body_too_large", "The request body is too large");
  const std::string* type = call.request.header("Content-Type");
  if (takes_body(call.request) && type != nullptr && !is_json_type(*type))
    return failure(415, "unsupported_media_type", "The request body must be application/json");
  return std::nullopt;
}

/// A body that cannot be taken in: no JSON, or JSON whose numbers or texts nothing here could hold (1e400,
/// half of a surrogate pair). Then the member is named, when it is one that the route knows.
HttpResponse unreadable(const Route& route, std::string_view body) {
  const bool is_object =
      raw::check(body, kApiDepth) == raw::Fault::none && raw::type_of(trim(body)) == raw::Type::object;
  if (is_object && route.schema != nullptr)
    for (const raw::Member& member : raw::members(body)) {
      if (parse_json(member.value, kApiDepth)) continue;
      for (const Field& field : *route.schema)
        if (member.named(field.name))
          return failure(400, "invalid_request",
                         std::string(field.name) + " holds a value that is out of range", field.name);
    }
  return failure(400, "invalid_json",
                 "The body must be one JSON value in UTF-8, without repeated member names");
}

std::optional<HttpResponse> read_body(const Route& route, Call& call) {
  if (!takes_body(call.request)) {
    const bool needed =
        route.schema != nullptr && (std::string_view(route.method) == "PUT" ||
                                    std::any_of(route.schema->begin(), route.schema->end(),
                                                [](const Field& field) { return field.is_required; }));
    if (!needed) return std::nullopt;
    return failure(400, "invalid_json", "A JSON object is required as the body");
  }
  auto body = parse_json(call.request.body, kApiDepth);
  if (!body) return unreadable(route, call.request.body);
  if (!body->is_object()) return failure(400, "invalid_request", "The body must be a JSON object");
  if (route.schema != nullptr)
    if (auto status = check_body(*route.schema, *body); !status) return failure(call, status.error());
  call.body = std::move(*body);
  return std::nullopt;
}

std::optional<HttpResponse> authenticate(const Route& route, Call& call) {
  if (route.who == Who::everyone) return std::nullopt;
  const std::string* header = call.request.header("Authorization");
  auto principal = call.api.authenticator->authenticate(header == nullptr ? std::string_view() : *header);
  if (!principal) {
    HttpResponse out = failure(call, principal.error());
    std::string challenge = R"(Bearer realm="mcpgw")";
    if (principal.error().reason != "unauthorized") challenge += R"(, error="invalid_token")";
    if (out.status == 401) out.headers.emplace_back("WWW-Authenticate", std::move(challenge));
    return out;
  }
  call.principal = std::move(*principal);
  if (!call.principal.has_scope("api"))
    return insufficient_scope("api", "The token does not have the scope api");
  if (route.who == Who::admin && !call.principal.is_admin())
    return failure(403, "admin_required", "Only an administrator may do this");
  return std::nullopt;
}

/// The checks of every route in their order, then its handler.
HttpResponse answer(const Route& route, Call& call, bool malformed_path) {
  if (auto refused = authenticate(route, call)) return std::move(*refused);
  if (auto refused = check_entity(call)) return std::move(*refused);
  if (malformed_path) return failure(400, "invalid_path", "The path is not valid UTF-8 in percent-encoding");
  if (auto refused = read_body(route, call)) return std::move(*refused);
  return route.handler(call);
}

HttpResponse guarded_answer(const Route& route, Call& call, bool malformed_path) {
  try {
    return answer(route, call, malformed_path);
  } catch (const std::exception& e) {
    return failure(call, {ErrorCode::internal, "internal", e.what()});
  } catch (...) {
    return failure(call, {ErrorCode::internal, "internal", "an unknown exception"});
  }
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

bool Call::flag(const char* name, bool fallback) const {
  const auto it = body.find(name);
  return it != body.end() && it->is_boolean() ? it->get<bool>() : fallback;
}

const std::vector<Route>& route_table() {
  static const std::vector<Route> table = [] {
    std::vector<Route> out;
    for (const auto& group : {auth_routes(), user_routes(), target_routes(), token_routes(), policy_routes(),
                              env_routes(), log_routes()})
      out.insert(out.end(), group.begin(), group.end());
    return out;
  }();
  return table;
}

}  // namespace mcpgw::detail

namespace mcpgw {

using namespace detail;  // NOLINT(*-using-namespace): the module's own internals

class AdminApi::Impl {
 public:
  explicit Impl(AdminApiOptions o) : options(std::move(o)) {}

  HttpResponse handle(const HttpRequest& request, const std::string& request_id) const {
    Match match = find_path(request.path());
    if (match.path == nullptr) return failure(404, "not_found", "There is nothing at this path");
    const Route* route = route_of(*match.path, request.method);
    if (route == nullptr) {
      HttpResponse out = request.method == "OPTIONS"
                             ? no_content()
                             : failure(405, "method_not_allowed", "This method is not offered here");
      out.headers.emplace_back("Allow", match.path->allow);
      return out;
    }
    if (route->audited != Audited::no && !options.live->can_audit()) {
      // Before anybody is asked who they are: it has no row either.
      return failure(503, "overloaded", "The audit log cannot keep up");
    }
    const Clock& clock = options.repository->clock();
    const Duration started = clock.monotonic();
    Call call{options, request, {}, std::move(match.values)};
    call.audit.created_at = clock.now();
    HttpResponse out = guarded_answer(*route, call, match.malformed);
    const std::string token_id = call.principal.token_id;
    if (!call.cause.empty()) report(request, request_id, call.cause);
    if (auto row = audit_row(*route, call, out, clock.monotonic() - started);
        row && !options.live->audit(std::move(*row)) && out.status < 400)
      out = failure(503, "storage_unavailable",
                    "It was done, but the audit log cannot be written: look before you try again");
    // Last, so that a write that fails or takes long changes nothing of the answer.
    if (!token_id.empty()) options.repository->touch_token(token_id);
    return out;
  }

  void report(const HttpRequest& request, const std::string& request_id, const std::string& cause) const {
    if (!options.on_internal_error) return;
    const std::string* traceparent = request.header("traceparent");
    options.on_internal_error(request_id, traceparent == nullptr ? std::string() : trace_id_of(*traceparent),
                              cause);
  }

  const AdminApiOptions options;
};

AdminApi::AdminApi(AdminApiOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
AdminApi::~AdminApi() = default;

HttpResponse AdminApi::handle(const HttpRequest& request, const std::string& request_id) {
  HttpResponse out;
  try {
    out = impl_->handle(request, request_id);
  } catch (const std::exception& e) {  // the audit or the log of the host; handlers are guarded themselves
    impl_->report(request, request_id, e.what());
    out = failure(500, "internal", "Something went wrong inside the gateway");
  }
  if (out.status >= 400 && !out.body.empty())
    out.body = raw::with_member(out.body, "request_id", raw::quote(request_id));
  out.set_header("X-Request-Id", request_id);
  out.set_header("Cache-Control", "no-store");
  out.set_header("X-Content-Type-Options", "nosniff");
  return out;
}

AdminApi::Work AdminApi::work(std::string_view method, std::string_view path) noexcept {
  try {
    const Match match = find_path(path);
    const Route* route = match.path == nullptr ? nullptr : route_of(*match.path, method);
    return route == nullptr ? Work::ordinary : route->work;
  } catch (const std::exception&) {
    return Work::hashes_password;  // out of memory: the narrower pool
  }
}

std::string AdminApi::route_template(std::string_view path) {
  const Match match = find_path(path);
  return match.path == nullptr ? std::string() : match.path->path;
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
