// Streams that a client opens by GET: a session's own, one of a POST that it resumes, and that of HTTP+SSE.
#include "base/text.hpp"
#include "gateway/mcp_endpoint.hpp"
#include "gateway/replicas.hpp"
#include "protocol/modern.hpp"
#include "runtime/url.hpp"

namespace mcpgw::detail {
namespace {

HttpResponse session_not_found() {
  HttpResponse out;
  out.status = 404;
  out.headers.emplace_back("Content-Type", "application/json");
  out.body = make_error({}, rpc::kSessionNotFound, "Session not found", R"({"code":"session_not_found"})");
  return out;
}

HttpResponse stream_head(std::string_view session_id) {
  HttpResponse out;
  out.headers.emplace_back("Content-Type", "text/event-stream");
  out.headers.emplace_back("X-Accel-Buffering", "no");
  if (!session_id.empty()) out.headers.emplace_back("Mcp-Session-Id", std::string(session_id));
  // Sent at once, so that a client behind a proxy that waits for a body sees that the stream is open.
  out.body = ": open\n\n";
  return out;
}

/// Where a client of HTTP+SSE posts to: relative, so that no header of a request can lead it elsewhere.
std::string post_path(const std::string& public_url, const std::string& session_id) {
  std::string path;
  if (const auto url = public_url.empty() ? std::nullopt : parse_url(public_url)) {
    path = url->target.substr(0, url->target.find('?'));
    while (!path.empty() && path.back() == '/') path.pop_back();
  }
  return path + "/mcp?session_id=" + percent_encode(session_id);
}

}  // namespace

bool McpEndpoint::refuse_version(const HttpRequest& request, const std::shared_ptr<Responder>& responder,
                                 const RequestMeta& meta, const char* what) {
  const std::string* version = request.header("MCP-Protocol-Version");
  if (version == nullptr || is_legacy_version(*version)) return false;
  HttpResponse response;
  // A date beyond the revisions with sessions: of an era that has neither GET nor DELETE.
  const bool newer = version->size() == 10 && *version > legacy_versions().front() && (*version)[4] == '-';
  if (is_modern_version(*version) || newer) {
    response = http_error(405, "method_not_allowed",
                          std::string("This protocol version has no ") + what + " here", meta.request_id);
    response.headers.emplace_back("Allow", "POST");
  } else {
    response.status = 400;
    response.headers.emplace_back("Content-Type", "application/json");
    response.body =
        make_error({}, rpc::kUnsupportedVersion, "Unsupported protocol version", version_data(*version));
  }
  responder->send(std::move(response));
  return true;
}

Task<void> McpEndpoint::get(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta) {
  if (refuse_version(request, responder, meta, "GET")) co_return;
  if (!read_accept(request.header("Accept")).sse)
    co_return responder->send(
        http_error(406, "not_acceptable", "Accept must admit text/event-stream", meta.request_id));
  const std::string* id = request.header("Mcp-Session-Id");
  if (id == nullptr) co_return co_await open_sse(std::move(responder), std::move(meta));
  auto found = co_await core_->sessions->find(meta.principal, *id);
  if (!found)
    co_return responder->send(
        http_error(503, "storage_unavailable", "The session cannot be looked up now", meta.request_id));
  const std::shared_ptr<Session> session = *found;
  if (!session) co_return responder->send(session_not_found());
  ReplicaCounts::Hold hold;
  if (!session->has_stream() && !co_await core_->replicas->counts().stream_fits(meta.principal.user_id, hold))
    co_return responder->send(too_many("Too many streams are open", meta.request_id));
  session->touch();
  std::optional<EventId> last;
  if (const std::string* header = request.header("Last-Event-ID")) last = EventId::read(trim(*header));
  if (last && last->stream != 0) co_return resume(responder, meta, session, *last);

  // It counts before its client knows of it.
  std::optional<ClientStreams::Opening> opening;
  hold.hand_over([&] { opening.emplace(session->streams()); });
  const auto stream = responder->start(stream_head(session->id()));
  if (!stream) co_return;
  session->streams()->open(stream, meta.principal, last, session->version() >= "2025-11-25");
  // After it is in use: a client that has gone already is noticed.
  responder->on_disconnect([weak = std::weak_ptr(session->streams()), raw_stream = stream.get()] {
    if (const auto streams = weak.lock()) (void)streams->gone(raw_stream);
  });
  if (session->closed()) session->streams()->close();
  session->watch_lists(meta.principal);
}

void McpEndpoint::resume(const std::shared_ptr<Responder>& responder, const RequestMeta& meta,
                         const std::shared_ptr<Session>& session, const EventId& last) {
  const auto reply = session->streams()->find(last);
  if (!reply) {
    // Not 404: the session is there. A stream that stays silent would make the client wait for nothing.
    responder->send(http_error(400, "unknown_event", "Nothing is kept of the stream that Last-Event-ID names",
                               meta.request_id));
    return;
  }
  const auto stream = responder->start(stream_head(session->id()));
  if (!stream) return;
  reply->resume(stream, meta.principal, last.number);
  responder->on_disconnect([weak = std::weak_ptr(reply), raw_stream = stream.get()] {
    if (const auto alive = weak.lock()) alive->lost(raw_stream);
  });
}

Task<void> McpEndpoint::open_sse(std::shared_ptr<Responder> responder, RequestMeta meta) {
  ReplicaCounts::Hold hold;
  if (!co_await core_->replicas->counts().stream_fits(meta.principal.user_id, hold))
    co_return responder->send(too_many("Too many streams are open", meta.request_id));
  auto made = core_->sessions->create_over_sse(meta.principal);
  if (!made) {
    const bool busy = made.error().code == ErrorCode::resource_exhausted;
    co_return responder->send(
        busy ? too_many("Too many sessions are open and busy: close one", meta.request_id)
             : http_error(503, made.error().reason, made.error().message, meta.request_id));
  }
  const std::shared_ptr<Session> session = *made;
  const std::string id = session->id();
  const auto end = [weak = std::weak_ptr(core_), user = session->user_id(), id] {
    if (const auto core = weak.lock()) core->sessions->end_over_sse(id);
  };
  std::optional<ClientStreams::Opening> opening;
  hold.hand_over([&] { opening.emplace(session->streams()); });
  const auto stream = responder->start(stream_head({}));
  if (!stream) co_return end();
  session->streams()->open(stream, meta.principal, std::nullopt, false);
  if (session->closed()) co_return session->streams()->close();  // ended before it had a stream to end with
  // The client posts as soon as it has read this: the stream must be there before.
  if (!stream->write("event: endpoint\ndata: " + post_path(core_->options.public_url, id) + "\n\n"))
    co_return end();
  responder->on_disconnect(end);
}

Task<void> McpEndpoint::remove(HttpRequest request, std::shared_ptr<Responder> responder, RequestMeta meta) {
  if (refuse_version(request, responder, meta, "DELETE")) co_return;
  const std::string* id = request.header("Mcp-Session-Id");
  if (id == nullptr)
    co_return responder->send(
        http_error(400, "invalid_request", "Header Mcp-Session-Id is missing", meta.request_id));
  auto found = co_await core_->sessions->find(meta.principal, *id);
  if (!found)
    co_return responder->send(
        http_error(503, "storage_unavailable", "The session cannot be looked up now", meta.request_id));
  if (!*found) co_return responder->send(session_not_found());
  core_->sessions->end(*found, "deleted");
  // With audit.sync its row is stored before anybody is told.
  if (!co_await core_->audit->settled())
    co_return responder->send(http_error(
        503, "storage_unavailable", "It was ended, but the audit log cannot be written", meta.request_id));
  HttpResponse response;
  response.status = 204;
  responder->send(std::move(response));
}

}  // namespace mcpgw::detail
