// What each method of the legacy era does: routing by name, judging, forwarding, translating names back.
#include <algorithm>
#include <array>

#include "base/moment.hpp"
#include "base/text.hpp"
#include "gateway/call_record.hpp"
#include "gateway/mcp_endpoint.hpp"
#include "gateway/observer.hpp"
#include "gateway/replicas.hpp"
#include "json/raw.hpp"
#include "runtime/poller.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kPageSize = 1000;

/// How a failure of ours is told, by its reason (docs/protocol.md, "Errors"): the text after "Target 'x'",
/// and the status of its audit row.
struct FailureText {
  std::string_view reason;
  std::string_view text;
  int status;
};
constexpr FailureText kFailures[] = {
    {"upstream_unreachable", "cannot be reached", 502},
    {"upstream_closed", "closed the connection", 502},
    {"upstream_protocol_error", "did not answer as an MCP server", 502},
    {"upstream_redirect", "answered with a redirect, which is not followed", 502},
    {"upstream_error", "failed", 502},
    {"response_too_large", "sent an answer over the size limit", 502},
    {"upstream_timeout", "did not answer in time", 504},
    {"cancelled", "was not waited for: the call was cancelled", 499},
    {"credential_unavailable", "cannot be used: its credential cannot be read", 503},
    {"target_busy", "is busy: too many calls are waiting", 503},
    {"instance_limit", "cannot be started: too many instances are running", 503},
    {"transport_disabled", "uses a transport that is switched off", 503},
    {"kubernetes_disabled", "needs Kubernetes, which is switched off", 503},
};

/// A place in the merged list: behind which item of which target. Items that come or go before it move
/// nothing, and it works on any replica. It holds no more than a client may know.
struct Place {
  std::string slug;
  std::size_t index = 0;  ///< of the item, when it was written
  std::string digest;     ///< of the item's name
};

std::string digest_of(const std::string& name) { return to_hex(sha256(name)).substr(0, 16); }

std::string page_cursor(ListKind kind, const Target& target, std::size_t index, const Item& item) {
  return base64url("mcpgw2:" + std::string(list_member(kind)) + ":" + target.slug + ":" +
                   std::to_string(index) + ":" + digest_of(item.name));
}

std::optional<Place> read_cursor(ListKind kind, std::string_view text) {
  if (text.size() > 512) return std::nullopt;
  const auto plain = from_base64url(text);
  if (!plain) return std::nullopt;
  const auto parts = split(*plain, ':');
  if (parts.size() != 5 || parts[0] != "mcpgw2" || parts[1] != list_member(kind) || parts[2].empty() ||
      parts[4].size() != 16)
    return std::nullopt;
  const auto index = raw::int_value(parts[3]);
  if (!index || *index < 0) return std::nullopt;
  return Place{parts[2], static_cast<std::size_t>(*index), parts[4]};
}

/// Where in the target's list the next page begins.
std::size_t resume_at(const std::vector<Item>& items, const Place& place) {
  if (place.index < items.size() && digest_of(items[place.index].name) == place.digest)
    return place.index + 1;
  for (std::size_t i = 0; i < items.size(); ++i)
    if (digest_of(items[i].name) == place.digest) return i + 1;
  return std::min(place.index, items.size());  // it is gone: its successors moved up
}

bool says_not_found(std::string_view error) {
  const auto code = raw::int_value(raw::find(error, "code"));
  if (code == rpc::kResourceNotFound) return true;
  return code == rpc::kInvalidParams &&
         to_lower(raw::string_value(raw::find(error, "message")).value_or("")).find("not found") !=
             std::string::npos;
}

}  // namespace

std::string McpEndpoint::invalid_params(ClientCall& call, std::string_view message) {
  call.audit.response_status = 400;
  call.audit.error_code = "invalid_params";
  return make_error(call.id, rpc::kInvalidParams, message, R"({"code":"invalid_params"})");
}

std::string McpEndpoint::unknown_item(ClientCall& call, ListKind kind, std::string_view name,
                                      const char* error_code, int status) {
  call.audit.response_status = status;
  call.audit.error_code = error_code;
  if (kind == ListKind::resources || kind == ListKind::templates)
    return make_error(call.id, rpc::kResourceNotFound, "Resource not found",
                      R"({"code":"unknown_item","uri":)" + raw::quote(name) + "}");
  const std::string what = kind == ListKind::prompts ? "Unknown prompt: " : "Unknown tool: ";
  return make_error(call.id, rpc::kInvalidParams, what + std::string(name), R"({"code":"unknown_item"})");
}

std::string McpEndpoint::upstream_failure(ClientCall& call, const Target& target, const Error& error) {
  std::string reason = error.reason;
  std::string_view text = "failed";
  int status = 502;
  // The address is nobody's business, and that it was not even tried no other answer.
  if (reason == "address_not_allowed" || reason == kCircuitOpen) reason = "upstream_unreachable";
  if (reason == "session_lost") reason = "upstream_closed";
  bool known = false;
  for (const FailureText& entry : kFailures) {
    if (entry.reason != reason) continue;
    text = entry.text;
    status = entry.status;
    known = true;
  }
  if (!known) reason = "upstream_error";
  call.audit.target_name = target.name;
  if (call.audit.decision.empty()) call.audit.decision = "allow";
  call.audit.response_status = status;
  call.audit.error_code = reason;
  if (status != 499)
    core_->log(LogLevel::warn, "gateway", "a call failed",
               {{"target", target.name},
                {"method", call.method},
                {"reason", error.reason},
                {"cause", error.message}},
               call.ids());
  const std::string message = "Target '" + target.name + "' " + std::string(text);
  if (status != 499)
    core_->observer->call_failed(target, call.principal.user_id, reason, message, error.message);
  return make_error(call.id, rpc::kInternalError, message,
                    R"({"code":)" + raw::quote(reason) + R"(,"target":)" + raw::quote(target.name) + "}");
}

Task<std::vector<McpEndpoint::Gathered>> McpEndpoint::gather(std::shared_ptr<Session> session,
                                                             Principal principal,
                                                             std::shared_ptr<const Session::View> view,
                                                             std::optional<ListKind> kind, bool fresh,
                                                             RequestIds request) {
  // One coroutine a target; who is late is left out, and what it brings later serves the next request.
  struct Join {
    std::vector<Gathered> results;
    std::mutex mutex;
    std::size_t open = 0;
    AsyncEvent done;
  };
  auto join = std::make_shared<Join>();
  const SteadyTime deadline = steady_clock::now() + core_->options.upstream.list_timeout;
  const auto fetch = [](std::shared_ptr<McpEndpoint> self, std::shared_ptr<Session> s, Principal p,
                        std::shared_ptr<const Target> target, std::optional<ListKind> what, bool again,
                        SteadyTime until, RequestIds ids) -> Task<Gathered> {
    Gathered out{target, nullptr, nullptr};
    if (!what) {
      auto connection = co_await s->connection(p, target, until);
      if (connection)
        out.connection = *connection;
      else
        self->core_->log(LogLevel::warn, "gateway", "a target is left out",
                         {{"target", target->name}, {"reason", connection.error().reason}}, ids);
      co_return out;
    }
    auto listing = co_await s->listing(p, target, *what, until, again);
    if (listing) {
      out.listing = *listing;
    } else {
      self->core_->log(LogLevel::warn, "gateway", "a target's list is left out",
                       {{"target", target->name}, {"reason", listing.error().reason}}, ids);
    }
    co_return out;
  };
  const std::size_t count = view->targets.size();
  if (count == 1) {
    std::vector<Gathered> single;
    single.push_back(co_await fetch(shared_from_this(), session, principal, view->targets.front(), kind,
                                    fresh, deadline, request));
    co_return single;
  }
  join->results.resize(count);
  join->open = count;
  for (std::size_t i = 0; i < count; ++i) join->results[i].target = view->targets[i];
  if (count == 0) co_return std::move(join->results);
  for (std::size_t i = 0; i < count; ++i) {
    Loop::current()->spawn([](auto work, std::shared_ptr<Join> all, std::size_t at) -> Task<void> {
      Gathered one = co_await std::move(work);
      bool last;
      {
        const std::lock_guard lock(all->mutex);
        all->results[at] = std::move(one);
        last = --all->open == 0;
      }
      if (last) all->done.set();
    }(fetch(shared_from_this(), session, principal, view->targets[i], kind, fresh, deadline, request), join,
                                                                                    i));
  }
  (void)co_await join->done.wait(deadline + std::chrono::milliseconds(100));
  const std::lock_guard lock(join->mutex);
  co_return join->results;
}

Task<std::string> McpEndpoint::dispatch(Call call) {
  if (Poller* poller = Poller::stepping()) co_await poller->next_step();
  const std::string& method = call->method;
  if (!call->params.empty() && raw::type_of(call->params) != raw::Type::object)
    co_return invalid_params(*call, "params must be an object");
  if (method == "tools/call") co_return co_await call_item(call, ListKind::tools);
  if (method == "tools/list") co_return co_await list(call, ListKind::tools);
  if (method == "prompts/get") co_return co_await call_item(call, ListKind::prompts);
  if (method == "prompts/list") co_return co_await list(call, ListKind::prompts);
  if (method == "resources/list") co_return co_await list(call, ListKind::resources);
  if (method == "resources/templates/list") co_return co_await list(call, ListKind::templates);
  if (method == "resources/read" || method == "resources/subscribe" || method == "resources/unsubscribe")
    co_return co_await resource(call);
  if (method == "completion/complete") co_return co_await complete(call);
  if (method == "logging/setLevel") co_return co_await set_level(call);
  if (method.starts_with("tasks/") && call->session->version() == "2025-11-25" &&
      (method == "tasks/get" || method == "tasks/result" || method == "tasks/cancel" ||
       method == "tasks/list"))
    co_return co_await task(call);
  if (method == "ping") {
    call->audit.response_status = 200;
    co_return make_result(call->id, "{}");
  }
  call->audit.response_status = 404;
  call->audit.error_code = "unknown_method";
  co_return make_error(call->id, rpc::kMethodNotFound, "Method not found", R"({"code":"unknown_method"})");
}

Task<std::string> McpEndpoint::list(Call call, ListKind kind) {
  std::optional<Place> place;
  if (const std::string_view cursor = raw::find(call->params, "cursor");
      !cursor.empty() && cursor != "null") {
    const auto text = raw::string_value(cursor);
    if (text) place = read_cursor(kind, *text);
    if (!place) co_return invalid_params(*call, "The cursor is not one of this server's");
  }
  const auto view = call->session->view(call->principal);
  // Only the first page asks the targets again: later ones continue the same list.
  const RequestIds ids = call->ids();
  const auto gathered = co_await gather(call->session, call->principal, view, kind, !place, ids);
  std::string items, last, next;
  std::size_t written = 0;
  SeenList seen;
  for (const Gathered& one : gathered) {
    if (!next.empty()) break;
    if (!one.listing || (place && one.target->slug < place->slug)) continue;
    const auto& all = one.listing->items;
    const bool prefixed = view->prefixed(*one.target);
    ListDigest digest(*one.target, prefixed);
    for (std::size_t i = place && one.target->slug == place->slug ? resume_at(all, *place) : 0;
         i < all.size(); ++i) {
      const Item& item = all[i];
      if (!core_->policy->evaluate(call->principal, one.target->id, policy_type(kind), item.name).allowed())
        continue;
      digest.add(item);
      if (written == kPageSize) {
        next = std::move(last);
        break;
      }
      if (!items.empty()) items += ',';
      items += prefixed ? export_item(kind, one.target->slug, item) : item.json;
      if (++written == kPageSize) last = page_cursor(kind, *one.target, i, item);
    }
    seen.emplace(one.target->id, digest.value());
  }
  // The first page is what later changes are compared with: whoever walks on is in the same list.
  if (!place) call->session->remember_list(kind, std::move(seen));
  call->audit.response_status = 200;
  call->audit.decision = "allow";
  std::string result = "{\"" + std::string(list_member(kind)) + "\":[" + items + "]";
  if (!next.empty()) result += R"(,"nextCursor":)" + raw::quote(next);
  result += '}';
  co_return make_result(call->id, result);
}

std::optional<ItemRoute> McpEndpoint::find_known_item(const ClientCall& call, ListKind kind,
                                                      const std::string& name) {
  const auto view = call.session->view(call.principal);
  for (const auto& target : view->targets) {
    const bool prefixed = view->prefixed(*target);
    if (prefixed && !(name.size() > target->slug.size() && name.starts_with(target->slug) &&
                      name[target->slug.size()] == '_'))
      continue;
    const auto connection = call.session->open_connection(call.principal, *target);
    const auto listing = connection ? connection->current_listing(kind) : nullptr;
    if (!listing) return std::nullopt;
    const auto& names = prefixed ? listing->by_exported : listing->by_name;
    if (const auto it = names.find(name); it != names.end())
      return ItemRoute{target, name, listing->items[it->second].name, prefixed};
  }
  return std::nullopt;
}

/// A program or a pod may have to be started for a call, which waits as long for it as for its answer; a
/// server that is somewhere else is there or not.
static SteadyTime found_by(const GatewayCore& core, const Target& target) {
  const auto patience = core.options.upstream.list_timeout;
  return steady_clock::now() +
         (target.is_process() ? std::max(patience, std::chrono::milliseconds(target.timeout_ms)) : patience);
}

Task<std::optional<ItemRoute>> McpEndpoint::find_item(Call call, ListKind kind, std::string name) {
  const auto view = call->session->view(call->principal);
  // A name that is not in the list kept may be a new one: the lists are asked for once more.
  for (int round = 0; round < 2; ++round) {
    const bool fresh = round == 1;
    for (const auto& target : view->targets) {
      const bool prefixed = view->prefixed(*target);
      if (prefixed && !(name.size() > target->slug.size() && name.starts_with(target->slug) &&
                        name[target->slug.size()] == '_'))
        continue;
      auto listing =
          co_await call->session->listing(call->principal, target, kind, found_by(*core_, *target), fresh);
      if (!listing) {
        // The name can only be this target's: tell what is wrong with it rather than that the name is
        // unknown.
        if (prefixed || view->targets.size() == 1) co_return ItemRoute{target, name, std::string(), prefixed};
        continue;
      }
      const auto& names = prefixed ? (*listing)->by_exported : (*listing)->by_name;
      if (const auto it = names.find(name); it != names.end())
        co_return ItemRoute{target, name, (*listing)->items[it->second].name, prefixed};
    }
  }
  co_return std::nullopt;
}

Task<std::string> McpEndpoint::call_item(Call call, ListKind kind) {
  static constexpr std::array<std::string_view, 3> kMembers{"name", "arguments", "task"};
  const auto [raw_name, arguments, task] = raw::find_each(call->params, kMembers);
  const auto name = raw::string_value(raw_name);
  if (!name) co_return invalid_params(*call, "params.name must be a string");
  if (!arguments.empty() && raw::type_of(arguments) != raw::Type::object && arguments != "null")
    co_return invalid_params(*call, "params.arguments must be an object");
  call->as_task = !task.empty() && kind == ListKind::tools;
  if (call->as_task && raw::type_of(task) != raw::Type::object)
    co_return invalid_params(*call, "params.task must be an object");
  call->audit.tool = name->substr(0, 256);
  auto route = find_known_item(*call, kind, *name);
  if (!route) route = co_await find_item(call, kind, *name);
  if (!route) co_return unknown_item(*call, kind, *name, "unknown_item", 404);
  if (route->original.empty()) {
    // The target could not be asked. Who may use nothing of that name learns nothing of its state.
    const std::string guess = route->prefixed ? name->substr(route->target->slug.size() + 1) : *name;
    if (!core_->policy->evaluate(call->principal, route->target->id, policy_type(kind), guess).allowed())
      co_return unknown_item(*call, kind, *name, "unknown_item", 404);
    auto again = co_await call->session->connection(
        call->principal, route->target, steady_clock::now() + core_->options.upstream.list_timeout);
    const Error error =
        again ? Error(ErrorCode::unavailable, "upstream_error", "The server did not list its items")
              : again.error();
    co_return upstream_failure(*call, *route->target, error);
  }
  std::string params = route->original == *name
                           ? std::string(call->params)
                           : raw::with_member(call->params, "name", raw::quote(route->original));
  if (Poller* poller = Poller::stepping()) co_await poller->next_step();
  co_return co_await forward(call, std::move(*route), policy_type(kind), std::move(params));
}

Task<std::optional<ItemRoute>> McpEndpoint::find_resource(Call call, ListKind kind, std::string uri) {
  const auto view = call->session->view(call->principal);
  if (view->targets.size() == 1 && !view->prefixed(*view->targets.front()))
    co_return ItemRoute{view->targets.front(), uri, uri, false};
  if (const auto imported = import_uri(uri)) {
    for (const auto& target : view->targets)
      if (target->slug == imported->slug && view->prefixed(*target))
        co_return ItemRoute{target, uri, imported->uri, true};
    co_return std::nullopt;
  }
  // Without a prefix it is served when exactly one target lists it.
  const RequestIds ids = call->ids();
  const auto gathered = co_await gather(call->session, call->principal, view, kind, false, ids);
  std::optional<ItemRoute> found;
  for (const Gathered& one : gathered) {
    if (!one.listing || !one.listing->by_name.contains(uri)) continue;
    if (found) co_return std::nullopt;
    found = ItemRoute{one.target, uri, uri, view->prefixed(*one.target)};
  }
  co_return found;
}

Task<std::string> McpEndpoint::resource(Call call) {
  const auto uri = raw::string_value(raw::find(call->params, "uri"));
  if (!uri || uri->empty()) co_return invalid_params(*call, "params.uri must be a string");
  call->audit.tool = uri->substr(0, 2000);
  auto route = co_await find_resource(call, ListKind::resources, *uri);
  if (!route) co_return unknown_item(*call, ListKind::resources, *uri, "unknown_item", 404);
  std::string params = route->original == *uri
                           ? std::string(call->params)
                           : raw::with_member(call->params, "uri", raw::quote(route->original));
  // Remembered first: what the server says of it may come before its answer.
  const bool was_subscribed = call->session->subscribed(*uri);
  const bool subscribes = call->method == "resources/subscribe";
  if (subscribes) {
    call->session->subscribe(*uri, true);
    if (!call->session->subscribed(*uri)) co_return invalid_params(*call, "Too many subscriptions");
  }
  std::string text = co_await forward(call, std::move(*route), ResourceType::resource, std::move(params));
  const bool done = call->audit.response_status == 200;
  if ((subscribes && !was_subscribed && !done) || (call->method == "resources/unsubscribe" && done))
    call->session->subscribe(*uri, false);
  co_return text;
}

Task<std::string> McpEndpoint::complete(Call call) {
  const std::string_view ref = raw::find(call->params, "ref");
  const auto type = raw::string_value(raw::find(ref, "type"));
  const bool prompt = type == "ref/prompt";
  if (!prompt && type != "ref/resource") co_return invalid_params(*call, "params.ref.type is not known");
  const std::string_view member = prompt ? "name" : "uri";
  const auto name = raw::string_value(raw::find(ref, member));
  if (!name) co_return invalid_params(*call, "params.ref must name a prompt or a resource template");
  call->audit.tool = name->substr(0, 2000);
  std::optional<ItemRoute> route;
  const ListKind kind = prompt ? ListKind::prompts : ListKind::templates;
  if (prompt)
    route = co_await find_item(call, kind, *name);
  else
    route = co_await find_resource(call, kind, *name);
  if (!route) co_return unknown_item(*call, kind, *name, "unknown_item", 404);
  if (route->original.empty())
    co_return upstream_failure(
        *call, *route->target,
        {ErrorCode::unavailable, "upstream_error", "The server did not list its items"});
  std::string params =
      route->original == *name
          ? std::string(call->params)
          : raw::with_member(call->params, "ref", raw::with_member(ref, member, raw::quote(route->original)));
  co_return co_await forward(call, std::move(*route), prompt ? ResourceType::prompt : ResourceType::resource,
                             std::move(params));
}

Task<std::string> McpEndpoint::set_level(Call call) {
  const auto level = raw::string_value(raw::find(call->params, "level"));
  if (!level || log_severity(*level) < 0) co_return invalid_params(*call, "params.level is not a log level");
  call->session->set_log_level(*level);
  // A server is asked for what the most curious of its clients wants; each is shown its own part.
  for (const auto& connection : call->session->connections())
    if (connection->usable()) co_await connection->want_log_level(call->session.get(), *level);
  call->audit.response_status = 200;
  co_return make_result(call->id, "{}");
}

Task<std::string> McpEndpoint::forward(Call call, ItemRoute route, ResourceType type, std::string params) {
  const Target& target = *route.target;
  const ListKind kind = type == ResourceType::tool     ? ListKind::tools
                        : type == ResourceType::prompt ? ListKind::prompts
                                                       : ListKind::resources;
  AuditRecord& row = call->audit;
  row.target_name = target.name;
  row.tool = route.original.substr(0, 2000);
  CallRecord record(*call, target, type, route.original);
  const Decision decision = core_->policy->evaluate(call->principal, target.id, type, route.original);
  record.judged(decision.allowed());
  row.policy_id = decision.policy_id;
  row.policy_name = decision.policy_name;
  if (!decision.allowed()) {
    row.decision = "deny";
    co_return unknown_item(*call, kind, route.asked, "denied", 403);
  }
  row.decision = "allow";
  const std::uint64_t judged = core_->policy->generation();

  const SteadyTime connect_by =
      steady_now() + std::chrono::milliseconds(std::max<std::int64_t>(target.timeout_ms, 1000));
  ReplicaPlaces::Place place;
  if (target.max_concurrency) {
    place = co_await core_->replicas->places().enter(
        target.id, call->principal.user_id, static_cast<std::size_t>(*target.max_concurrency), connect_by);
    if (!place)
      co_return upstream_failure(
          *call, target, Error(ErrorCode::resource_exhausted, "target_busy", "Too many calls are waiting"));
  }
  // A server that forgot the session has not acted on the call: it is sent once more on a new one.
  bool sent_again = false;
  for (int attempt = 0;; ++attempt) {
    record.connecting();
    Result<std::shared_ptr<UpstreamConnection>> connection =
        call->session->open_connection(call->principal, target);
    if (!*connection)
      connection = co_await call->session->connection(call->principal, route.target, connect_by);
    if (!connection) co_return upstream_failure(*call, target, connection.error());
    const UpstreamConnection::Use use(*connection);
    // Waiting takes time: whoever was revoked or denied meanwhile does not get through.
    if (call->handle->cancelled())
      co_return upstream_failure(*call, target,
                                 Error(ErrorCode::cancelled, "cancelled", "The call was cancelled"));
    if (core_->policy->generation() != judged &&
        !core_->policy->evaluate(call->principal, target.id, type, route.original).allowed()) {
      row.decision = "deny";
      co_return unknown_item(*call, kind, route.asked, "denied", 403);
    }
    // Retired between the moment it was handed out and the moment it was in use.
    if (!(*connection)->usable() && attempt < kMaxReopened) continue;
    call->connection = *connection;
    UpstreamCall request;
    request.method = call->method;
    request.params = params;
    // Who does not run tasks must take the call for a plain one (2025-11-25, basic/utilities/tasks).
    const auto tasks = [&] { return carries_tasks(*call->session, (*connection)->upstream().facts()); };
    if (call->as_task && !tasks()) request.params = raw::without_member(params, "task");
    record.sending(request);
    for (const std::string& name : target.forward_headers)
      if (const std::string* value = find_header(call->headers, name))
        request.headers.emplace_back(name, *value);
    request.may_have_meta = call->may_have_meta;
    request.wants_progress = !call->progress_token.empty();
    request.timeout = (*connection)->binding().timeout;
    request.max_timeout = std::max(request.timeout, core_->options.upstream.max_timeout);
    if (call->method == "tasks/result") request.timeout = request.max_timeout;  // it waits for the task's end
    request.timeout = call->begin_limit(request.timeout, request.max_timeout);
    request.observer = call;
    request.handle = call->handle;
    auto answer = co_await (*connection)->request(std::move(request), call->session.get());
    if (Poller* poller = Poller::stepping()) co_await poller->next_step();
    record.answered(answer && !answer->is_error);
    if (call->end_limit() && !answer)
      answer = Error(ErrorCode::deadline_exceeded, "upstream_timeout", "The server did not answer in time");
    if (!answer) {
      if (answer.error().reason == "session_lost" && !sent_again && !call->handle->cancelled()) {
        sent_again = true;
        call->session->drop(*connection);
        continue;
      }
      co_return upstream_failure(*call, target, answer.error());
    }
    if (answer->is_error) {
      if (type == ResourceType::resource && call->method == "resources/read" &&
          says_not_found(answer->payload))
        co_return unknown_item(*call, kind, route.asked, "unknown_item", 404);
      row.response_status = 502;
      row.error_code = "upstream_error";
      for (const std::string_view one :
           raw::elements(raw::find(raw::find(answer->payload, "data"), "elicitations")))
        (*connection)->remember_elicitation(one, call->session);
      co_return make_raw_error(call->id, answer->payload);
    }
    row.response_status = 200;
    if (type == ResourceType::tool) {
      static constexpr std::array<std::string_view, 2> kMembers{"isError", "task"};
      const auto [failed, task] = raw::find_each(answer->payload, kMembers);
      if (failed == "true") row.error_code = "tool_error";
      if ((call->method != "tools/call" || !task.empty()) && tasks())
        answer->payload = export_task(*call, target, route.original, **connection, *answer);
    }
    if (route.prefixed)
      co_return make_result(call->id, export_result(call->method, target.slug, answer->payload));
    co_return make_result(call->id, answer->payload);
  }
}

}  // namespace mcpgw::detail
