// Replicas: a request is handed to another replica, and its answer passed on while it comes.
#include "base/text.hpp"
#include "gateway/client_reply.hpp"
#include "gateway/replicas.hpp"
#include "json/raw.hpp"
#include "protocol/message.hpp"
#include "runtime/line_splitter.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr std::string_view kLostMessage =
    "The replica that ran this call has gone: what it has done of it is unknown";
constexpr std::string_view kLostData = R"({"code":"replica_lost"})";

/// Fields of one connection, and those that were judged here.
bool stays_here(std::string_view name) {
  for (const std::string_view own :
       {"Host", "Connection", "Keep-Alive", "Content-Length", "Transfer-Encoding", "Upgrade", "Origin"})
    if (iequals(name, own)) return true;
  return false;
}

/// What a request asks for, as far as that decides what its loss means.
struct Asked {
  std::vector<std::string> ids;  ///< raw, of requests that need an answer
  bool repeatable = true;        ///< nothing is done twice when it is asked for again
};
Asked asked(const HttpRequest& request, std::size_t depth) {
  Asked out;
  if (request.method != "POST" || raw::check(request.body, depth) != raw::Fault::none) return out;
  const std::string_view body = trim(request.body);
  const auto parts = body.front() == '[' ? raw::elements(body) : std::vector<std::string_view>{body};
  for (const std::string_view part : parts) {
    const auto read = read_envelope(part);
    const auto* message = std::get_if<Envelope>(&read);
    if (message == nullptr || message->kind != Envelope::Kind::request) continue;
    out.ids.emplace_back(message->id);
    if (message->method == "tools/call") out.repeatable = false;
  }
  return out;
}

}  // namespace

Task<Replicas::Outcome> Replicas::send(std::string owner, std::string address, const HttpRequest& request,
                                       std::shared_ptr<Responder> responder) {
  const auto core = core_.lock();
  const auto url = parse_url(address + std::string(kReplicaPath));
  if (!core || !url) co_return Outcome::absent;
  ReplicaRequest one{id_, owner, std::string(32, '\0'), {}};
  core->random->fill(one.key.data(), one.key.size());
  one.request.method = request.method;
  one.request.target = request.target;
  one.request.remote_address = request.remote_address;
  one.request.over_tls = request.over_tls;
  one.request.body = request.body;
  for (const auto& [name, value] : request.headers)
    if (!stays_here(name)) one.request.headers.emplace_back(name, value);
  auto frames = ReplicaFrames::create(one.key, core->random);
  if (!frames) co_return Outcome::absent;

  const auto cancel = std::make_shared<CancelSource>();
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) co_return Outcome::absent;
    running_.insert(cancel);
  }
  const auto done = [&](Outcome outcome) {
    {
      const std::lock_guard lock(mutex_);
      running_.erase(cancel);
    }
    if (outcome != Outcome::answered) responder->on_disconnect(nullptr);
    return outcome;
  };
  responder->on_disconnect([cancel] { cancel->cancel(); });
  ClientRequest out;
  out.method = "POST";
  out.url = *url;
  out.headers = {{"Content-Type", "text/plain"}};
  out.body = seal_.seal(one);
  out.deadline = steady_clock::now() + core->options.replicas.silence;
  one = {};
  std::string detail;
  auto exchange = co_await http_->send(std::move(out), cancel.get(), &detail);
  // The client has gone: nobody waits for anything.
  if (cancel->cancelled()) co_return done(Outcome::answered);
  Outcome outcome;
  if (exchange && (*exchange)->status == 200) {
    outcome = co_await relay(**exchange, *frames, request, responder);
    exchange = Error(ErrorCode::cancelled, "cancelled", "");  // what is left of it is not wanted
    if (cancel->cancelled()) co_return done(Outcome::answered);
  } else {
    const bool sent =
        exchange ? (*exchange)->status == 500 : exchange.error().reason != "upstream_unreachable";
    core->log(LogLevel::warn, "replicas", "a replica cannot be asked",
              {{"replica", owner},
               {"address", address},
               {"cause", exchange ? "status " + std::to_string((*exchange)->status) : detail}});
    outcome = sent ? Outcome::lost : Outcome::absent;
  }
  if (outcome != Outcome::lost) co_return done(outcome);

  // Nothing was answered, and the other may have begun.
  const Asked what = asked(request, core->options.limits.json_depth);
  if (what.repeatable) co_return done(Outcome::lost);
  std::vector<std::string> errors;
  for (const std::string& id : what.ids)
    errors.push_back(make_error(id, rpc::kInternalError, kLostMessage, kLostData));
  HttpResponse response;
  if (read_accept(request.header("Accept")).json) {
    response.headers.emplace_back("Content-Type", "application/json");
    for (const std::string& error : errors) response.body += (response.body.empty() ? "" : ",") + error;
    if (trim(request.body).front() == '[') response.body = "[" + response.body + "]";
  } else {
    response.headers.emplace_back("Content-Type", "text/event-stream");
    for (const std::string& error : errors) response.body += sse_event(error);
  }
  responder->send(std::move(response));
  co_return done(Outcome::answered);
}

Task<Replicas::Outcome> Replicas::relay(HttpExchange& exchange, ReplicaFrames& frames,
                                        const HttpRequest& request,
                                        const std::shared_ptr<Responder>& responder) {
  using Kind = ReplicaFrame::Kind;
  const auto core = core_.lock();
  if (!core) co_return Outcome::lost;
  // Sealed text is longer by a third.
  LineSplitter lines(core->options.limits.upstream_bytes * 3 / 2 + 1024 * 1024);
  std::shared_ptr<ResponseStream> stream;
  std::optional<Outcome> outcome;
  const auto take = [&](const std::string& line) {
    if (outcome) return;
    auto frame = frames.open(line);
    if (!frame) {
      outcome = Outcome::lost;
    } else if (frame->kind == Kind::absent && !stream) {
      outcome = Outcome::absent;
    } else if (frame->kind == Kind::answer && !stream) {
      responder->send(std::move(frame->response));
      outcome = Outcome::answered;
    } else if (frame->kind == Kind::start && !stream) {
      stream = responder->start(std::move(frame->response));
      if (!stream) outcome = Outcome::answered;
    } else if (frame->kind == Kind::data && stream) {
      if (!stream->write(std::move(frame->response.body))) outcome = Outcome::answered;
    } else if (frame->kind == Kind::end && stream) {
      stream->close();
      outcome = Outcome::answered;
    } else if (frame->kind != Kind::alive) {
      outcome = Outcome::lost;
    }
  };
  const auto too_long = [&](std::string, std::string, std::size_t) { outcome = Outcome::lost; };
  while (!outcome) {
    exchange.set_deadline(steady_clock::now() + core->options.replicas.silence);
    auto piece = co_await exchange.read_some();
    if (!piece || piece->empty()) {
      if (piece) lines.finish(take, too_long);
      if (!outcome) outcome = Outcome::lost;
      break;
    }
    lines.feed(*piece, take, too_long);
  }
  if (*outcome == Outcome::answered || !stream) {
    // The connection is used again when its end is read.
    exchange.set_deadline(steady_clock::now() + std::chrono::seconds(1));
    (void)co_await exchange.read_some();
    co_return *outcome;
  }
  // Its answer has begun: whoever waits for the rest is told.
  if (request.method == "POST")
    for (const std::string& id : asked(request, core->options.limits.json_depth).ids)
      (void)stream->write(sse_event(make_error(id, rpc::kInternalError, kLostMessage, kLostData)));
  stream->close();
  co_return Outcome::answered;
}

}  // namespace mcpgw::detail
