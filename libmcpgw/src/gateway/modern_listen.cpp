// subscriptions/listen (MCP 2026-07-28, basic/patterns/subscriptions): the stream on which a modern client
// hears of changes, fed from what legacy upstreams say on their own streams.
#include "base/text.hpp"
#include "gateway/modern_endpoint.hpp"
#include "gateway/observer.hpp"
#include "gateway/replicas.hpp"
#include "json/raw.hpp"
#include "observability/activity_hub.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kMaxUris = 1000;

struct Filter {
  bool tools = false, prompts = false, resources = false;
  std::vector<std::string> uris;
};

/// nullopt when a member is of the wrong type. Unknown members are left out of what is acknowledged.
std::optional<Filter> read_filter(std::string_view params) {
  const std::string_view wanted = raw::find(params, "notifications");
  if (wanted.empty() || raw::type_of(wanted) != raw::Type::object) return std::nullopt;
  Filter out;
  const std::pair<const char*, bool*> flags[] = {{"toolsListChanged", &out.tools},
                                                 {"promptsListChanged", &out.prompts},
                                                 {"resourcesListChanged", &out.resources}};
  for (const auto& [name, flag] : flags) {
    const std::string_view value = raw::find(wanted, name);
    if (value.empty()) continue;
    if (raw::type_of(value) != raw::Type::boolean) return std::nullopt;
    *flag = value == "true";
  }
  if (const std::string_view uris = raw::find(wanted, "resourceSubscriptions"); !uris.empty()) {
    if (raw::type_of(uris) != raw::Type::array) return std::nullopt;
    for (const std::string_view element : raw::elements(uris)) {
      auto uri = raw::string_value(element);
      if (!uri || out.uris.size() == kMaxUris) return std::nullopt;
      if (std::find(out.uris.begin(), out.uris.end(), *uri) == out.uris.end())
        out.uris.push_back(std::move(*uri));
    }
  }
  return out;
}

std::string acknowledgement(const ModernListen& listen) {
  std::string out;
  const auto add = [&out](std::string_view text) {
    if (!out.empty()) out += ',';
    out += text;
  };
  if (listen.tools) add(R"("toolsListChanged":true)");
  if (listen.prompts) add(R"("promptsListChanged":true)");
  if (listen.resources) add(R"("resourcesListChanged":true)");
  if (!listen.items.empty()) {
    std::string uris;
    for (const ListenItem& item : listen.items) uris += (uris.empty() ? "" : ",") + raw::quote(item.exported);
    add(R"("resourceSubscriptions":[)" + uris + "]");
  }
  return R"({"notifications":{)" + out + "}}";
}

}  // namespace

Task<void> ModernEndpoint::listen(Round round, std::string params, std::shared_ptr<Responder> responder,
                                  RequestMeta meta, HttpHeaders headers, Accepts accepts) {
  const auto refuse = [&](int code, std::string_view message, const char* error_code, int status) {
    finish(round,
           {true,
            R"({"code":)" + std::to_string(code) + R"(,"message":)" + raw::quote(message) +
                R"(,"data":{"code":)" + raw::quote(error_code) + "}}",
            status, error_code},
           nullptr);
  };
  if (!accepts.sse)
    co_return responder->send(
        http_error(406, "not_acceptable", "Accept must admit text/event-stream", meta.request_id));
  const auto filter = read_filter(params);
  if (!filter)
    co_return refuse(rpc::kInvalidParams, "params.notifications is not a filter", "invalid_params", 400);
  const auto client = core_->modern->get(round->principal, round->capabilities);
  ReplicaCounts::Hold hold;
  if (!client || !co_await core_->replicas->counts().stream_fits(meta.principal.user_id, hold))
    co_return responder->send(too_many("Too many streams are open", meta.request_id));
  const auto subscription = std::make_shared<ModernListen>(round->id, round->principal);
  subscription->tools = filter->tools;
  subscription->prompts = filter->prompts;
  subscription->resources = filter->resources;

  // Resources first: the acknowledgement says which of them are listened to.
  std::vector<ListenItem>& items = subscription->items;
  if (!filter->uris.empty()) {
    const Call call = make_call(round, client, std::move(headers), params, false);
    const SteadyTime deadline = steady_clock::now() + core_->options.upstream.list_timeout;
    for (const std::string& uri : filter->uris) {
      if (steady_clock::now() >= deadline) break;
      auto route = co_await legacy_->find_resource(call, ListKind::resources, uri);
      if (!route || route->original.empty() ||
          !core_->policy
               ->evaluate(round->principal, route->target->id, ResourceType::resource, route->original)
               .allowed())
        continue;  // unknown and denied alike are not acknowledged
      const ListenItem item{route->target->id, route->original, uri};
      if (co_await client->subscribe(round->principal, route->target, item, deadline)) items.push_back(item);
    }
  }
  // What its client is told of a list after the acknowledgement is at least as new as this.
  for (const ListKind kind : {ListKind::tools, ListKind::prompts, ListKind::resources})
    if (subscription->wants(kind))
      (void)subscription->changed(kind, client->list_view(round->principal, kind));
  // It is there and counts before its client knows of it.
  bool added = false;
  hold.hand_over([&] { added = client->add(subscription); });
  if (!added) {
    for (const ListenItem& item : items) client->unsubscribe(item);
    co_return responder->send(too_many("Too many streams are open", meta.request_id));
  }

  AuditRecord row = round->row;
  row.response_status = 200;
  row.decision = "allow";
  row.request_body = audited(*round, nullptr);
  core_->observer->finished(row, core_->clock->monotonic() - round->started, round->trace.get());
  if (!co_await core_->audit->write(std::move(row))) {
    client->remove(subscription.get());
    co_return responder->send(
        http_error(503, "storage_unavailable", "The audit log cannot be written", meta.request_id));
  }
  HttpResponse head;
  head.headers.emplace_back("Content-Type", "text/event-stream");
  head.headers.emplace_back("X-Accel-Buffering", "no");
  const auto stream = responder->start(std::move(head));
  if (!stream) co_return client->remove(subscription.get());
  subscription->open(stream, acknowledgement(*subscription));
  responder->on_disconnect([weak = std::weak_ptr(client), listening = subscription.get()] {
    if (const auto alive = weak.lock()) alive->remove(listening);
  });
  if (meta.not_in_flight) meta.not_in_flight();
  // A gateway that began to close meanwhile has not seen this one.
  if (core_->draining.load(std::memory_order_acquire)) core_->modern->end_listens();

  // What servers say is heard on connections to them.
  const auto view = client->view(round->principal);
  const RequestIds ids{meta.request_id, meta.trace_id};
  (void)co_await legacy_->gather(client, round->principal, view, std::nullopt, false, ids);
  for (const ListKind kind : {ListKind::tools, ListKind::prompts, ListKind::resources})
    if (subscription->wants(kind) && subscription->changed(kind, client->list_view(round->principal, kind)))
      subscription->send(list_changed(kind), {});
}

}  // namespace mcpgw::detail
