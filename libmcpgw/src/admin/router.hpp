// The route table of the REST API: method, path, who may, what the body looks like, what answers. A route
// cannot be written without saying who may use it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "admin/json_body.hpp"
#include "json/json.hpp"
#include "mcpgw/admin_api.hpp"

namespace mcpgw::detail {

enum class Who {
  everyone,  ///< no token needed
  user,      ///< any authenticated user whose token has the scope api
  admin,
};

/// Which audit row a route leaves.
enum class Audited { no, admin, auth };

/// What a handler gets.
struct Call {
  const AdminApiOptions& api;
  const HttpRequest& request;
  Principal principal;            ///< empty for Who::everyone
  std::vector<std::string> path;  ///< decoded values of {placeholders}, in order
  Json body = Json::object();     ///< members have the types of the schema
  AuditRecord audit;
  int credentials_dropped = 0;  ///< told in the audit row
  std::string cause;            ///< of a 500, for the log only

  bool has(const char* name) const;  ///< present and not null
  std::string text(const char* name) const;
  std::optional<std::string> text_if(const char* name) const;
  bool flag(const char* name, bool fallback) const;
};

using Handler = HttpResponse (*)(Call&);

struct Route {
  const char* method;
  const char* path;
  Who who;
  Audited audited;
  const Schema* schema;  ///< null: takes no input; a body is ignored unless it is malformed
  Handler handler;
  AdminApi::Work work = AdminApi::Work::ordinary;
};

/// The whole API.
const std::vector<Route>& route_table();

}  // namespace mcpgw::detail
