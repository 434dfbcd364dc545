// tasks/get, tasks/result, tasks/cancel and tasks/list of revision 2025-11-25: each is judged as the tool
// that the task runs, and goes to the target that runs it.
#include "gateway/mcp_endpoint.hpp"
#include "gateway/tasks.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kMaxListed = 1000;
constexpr int kMaxPages = 50;

}  // namespace

bool carries_tasks(const Session& session, const ServerFacts& facts) {
  return session.version() == "2025-11-25" && facts.runs_tasks();
}

std::string McpEndpoint::task_capabilities(const Session& session, const std::vector<Gathered>& reached) {
  bool any = false, list = false, cancel = false;
  for (const Gathered& one : reached) {
    if (!one.connection) continue;
    const ServerFacts& facts = one.connection->upstream().facts();
    if (!carries_tasks(session, facts)) continue;
    any = true;
    list |= !raw::find(raw::find(facts.capabilities, "tasks"), "list").empty();
    cancel |= !raw::find(raw::find(facts.capabilities, "tasks"), "cancel").empty();
  }
  if (!any) return {};
  return std::string("{") + (list ? R"("list":{},)" : "") + (cancel ? R"("cancel":{},)" : "") +
         R"("requests":{"tools":{"call":{}}}})";
}

std::string McpEndpoint::unknown_task(ClientCall& call, const char* error_code, int status) {
  call.audit.response_status = status;
  call.audit.error_code = error_code;
  return make_error(call.id, rpc::kInvalidParams, "Task not found", R"({"code":"unknown_item"})");
}

Task<std::string> McpEndpoint::task(Call call) {
  if (call->method == "tasks/list") co_return co_await list_tasks(call);
  const auto id = raw::string_value(raw::find(call->params, "taskId"));
  if (!id) co_return invalid_params(*call, "params.taskId must be a string");
  const auto slug = TaskTable::slug_of(*id);
  const auto view = call->session->view(call->principal);
  for (const auto& target : view->targets) {
    if (!slug || target->slug != *slug) continue;
    auto task = core_->pool->tasks().open(call->principal.user_id, *target, *id);
    if (!task) break;
    call->audit.tool = task->tool;
    const Decision decision =
        core_->policy->evaluate(call->principal, target->id, ResourceType::tool, task->tool);
    if (!decision.allowed()) {
      call->audit.target_name = target->name;
      call->audit.decision = "deny";
      call->audit.policy_id = decision.policy_id;
      call->audit.policy_name = decision.policy_name;
      co_return unknown_task(*call, "denied", 403);
    }
    std::string params = raw::with_member(call->params, "taskId", raw::quote(task->original));
    ItemRoute route{target, *id, task->tool, view->prefixed(*target)};
    call->task = std::move(*task);
    co_return co_await forward(call, std::move(route), ResourceType::tool, std::move(params));
  }
  co_return unknown_task(*call, "unknown_item", 404);
}

std::string McpEndpoint::export_task(ClientCall& call, const Target& target, const std::string& tool,
                                     const UpstreamConnection& connection, const UpstreamAnswer& answer) {
  TaskTable& tasks = core_->pool->tasks();
  std::string out = answer.payload;
  if (call.method == "tools/call") {
    const std::string_view made = raw::find(answer.payload, "task");
    const auto original = raw::string_value(raw::find(made, "taskId"));
    if (!original || original->size() > 1024) return out;
    call.task = tasks.add(call.principal.user_id, target, tool, *original, call.session);
    if (!call.progress_token.empty() && !answer.progress_token.empty())
      tasks.expect_progress(call.task, connection.binding().key, answer.progress_token, call.progress_token);
    out = raw::with_member(out, "task", raw::with_member(made, "taskId", raw::quote(call.task.exported)));
  } else if (call.method != "tasks/result" &&
             raw::string_value(raw::find(out, "taskId")) == call.task.original) {
    out = raw::with_member(out, "taskId", raw::quote(call.task.exported));
  }
  return map_related_task(out, [&](const std::string& id) {
    return id == call.task.original ? std::optional(call.task.exported) : std::nullopt;
  });
}

Task<std::string> McpEndpoint::list_tasks(Call call) {
  // One page: what a user may have at once is bounded.
  if (const std::string_view cursor = raw::find(call->params, "cursor"); !cursor.empty() && cursor != "null")
    co_return invalid_params(*call, "The cursor is not one of this server's");
  const auto view = call->session->view(call->principal);
  const RequestIds ids = call->ids();
  const auto reached = co_await gather(call->session, call->principal, view, std::nullopt, false, ids);
  const SteadyTime deadline = steady_clock::now() + core_->options.upstream.list_timeout;
  std::string items;
  std::size_t count = 0;
  for (const Gathered& one : reached) {
    if (!one.connection) continue;
    const ServerFacts& facts = one.connection->upstream().facts();
    if (!carries_tasks(*call->session, facts) ||
        raw::find(raw::find(facts.capabilities, "tasks"), "list").empty())
      continue;
    std::string params;
    for (int page = 0; page < kMaxPages && count < kMaxListed; ++page) {
      UpstreamCall request;
      request.method = "tasks/list";
      request.params = params;
      request.timeout = request.max_timeout =
          std::max(std::chrono::duration_cast<std::chrono::milliseconds>(deadline - steady_clock::now()),
                   std::chrono::milliseconds(1));
      request.handle = call->handle;
      const UpstreamConnection::Use use(one.connection);
      auto answer = co_await one.connection->upstream().request(std::move(request));
      if (!answer || answer->is_error) {
        core_->log(LogLevel::warn, "gateway", "a target's tasks are left out", {{"target", one.target->name}},
                   ids);
        break;
      }
      for (const std::string_view item : raw::elements(raw::find(answer->payload, "tasks"))) {
        const auto id = raw::string_value(raw::find(item, "taskId"));
        const auto known = id ? core_->pool->tasks().find(one.target->id, *id) : std::nullopt;
        // A server that several users share lists everybody's.
        if (!known || known->task.user_id != call->principal.user_id || count >= kMaxListed ||
            !core_->policy->evaluate(call->principal, one.target->id, ResourceType::tool, known->task.tool)
                 .allowed())
          continue;
        if (count++ > 0) items += ',';
        items += raw::with_member(item, "taskId", raw::quote(known->task.exported));
      }
      const auto next = raw::string_value(raw::find(answer->payload, "nextCursor"));
      if (!next) break;
      params = R"({"cursor":)" + raw::quote(*next) + "}";
    }
  }
  call->audit.response_status = 200;
  call->audit.decision = "allow";
  co_return make_result(call->id, R"({"tasks":[)" + items + "]}");
}

}  // namespace mcpgw::detail
