// The route table of the REST API: method, path, who may, what the body looks like, what answers. A route
// cannot be written without saying who may use it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "json/json.hpp"
#include "mcpgw/admin_api.hpp"

namespace mcpgw::detail {

enum class Who {
  everyone,  ///< no token needed
  user,      ///< any authenticated user whose token has the scope api
  admin,
};

/// A known member of a body. Unknown members are ignored.
struct Field {
  enum class Type { string, boolean, integer, strings, object, objects };
  const char* name;
  Type type;
  bool required = false;
};
using Schema = std::vector<Field>;

/// Which audit row a route leaves.
enum class Audited { no, admin, auth };

/// What a handler gets.
struct Call {
  const AdminApiOptions& api;
  const HttpRequest& request;
  Principal principal;            ///< empty for Who::everyone
  std::vector<std::string> path;  ///< decoded values of {placeholders}, in order
  Json body;                      ///< an object; members have the types of the schema
  AuditRecord audit;
  std::vector<std::string> secret_names;  ///< members of this body that hold secrets by their place

  bool has(const char* name) const;  ///< present and not null
  std::string text(const char* name) const;
  std::optional<std::string> text_if(const char* name) const;
};

using Handler = HttpResponse (*)(Call&);

struct Route {
  const char* method;
  const char* path;
  Who who;
  Audited audited;
  const Schema* schema;  ///< null: takes no input; a body is ignored unless it is malformed
  Handler handler;
};

/// The whole API.
const std::vector<Route>& route_table();

// Answers.
HttpResponse json_response(int status, const Json& value);
HttpResponse no_content();
HttpResponse failure(const Error& error);
HttpResponse failure(int status, std::string reason, std::string message, std::string field = {});
/// A list, cut by ?limit= and ?offset=, with X-Total-Count and Link.
HttpResponse list_response(const Call& call, std::vector<Json> items);
/// A single object with its ETag.
HttpResponse object_response(int status, const Json& value, std::uint64_t version);

/// The version that If-Match names; an Error 412 when it is not `current`. nullopt: no condition.
Result<std::optional<std::uint64_t>> if_match(const Call& call, std::uint64_t current);
/// A path value that must be a UUID: 400 "invalid_id".
std::optional<HttpResponse> check_id(std::string_view value);

}  // namespace mcpgw::detail
