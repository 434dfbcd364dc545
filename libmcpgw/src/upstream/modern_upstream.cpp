#include "upstream/modern_upstream.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "base/text.hpp"
#include "json/raw.hpp"
#include "mcpgw/version.hpp"
#include "protocol/bridge.hpp"
#include "protocol/tool_headers.hpp"
#include "runtime/waiter.hpp"
#include "upstream/modern_wire.hpp"
#include "upstream/rpc_support.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kMaxTries = 32;  ///< of one call that is asked for input again and again
constexpr std::size_t kMaxTools = 100000;
constexpr auto kInputWait = std::chrono::minutes(5);
constexpr milliseconds kFirstBackoff{1000};
constexpr milliseconds kMaxBackoff{30000};

using Verdict = EraFinding::Verdict;

bool is_modern_code(std::int64_t code) {
  return code == rpc::kHeaderMismatch || code == rpc::kMissingCapability || code == rpc::kUnsupportedVersion;
}

bool names_version(std::string_view versions) {
  for (const std::string_view one : raw::elements(versions))
    if (raw::string_value(one) == kModernVersion) return true;
  return false;
}

Error cancelled_error() { return {ErrorCode::cancelled, "cancelled", "The call was cancelled"}; }

class ModernUpstream final : public Upstream, public std::enable_shared_from_this<ModernUpstream> {
 public:
  ModernUpstream(Loop& home, ClientFacts client, UpstreamEvents events)
      : home_(home), client_(std::move(client)), events_(std::move(events)) {
    meta_.capabilities = client_.capabilities.empty() ? "{}" : client_.capabilities;
    meta_.client_info = client_.client_info.empty()
                            ? R"({"name":"mcpgw","version":)" + raw::quote(version()) + "}"
                            : client_.client_info;
  }

  const ServerFacts& facts() const override { return facts_; }
  bool alive() const override { return !closed_.load(std::memory_order_acquire); }
  std::string_view transport() const override { return wire_->transport(); }

  void use_http(HttpUpstreamOptions options) { wire_ = make_http_wire(std::move(options), events_.on_log); }
  void use_channel(std::shared_ptr<MessageChannel> channel) {
    const auto on_lost = [weak = weak_from_this()](const Error& error) {
      if (const auto self = weak.lock()) self->lose(error);
    };
    wire_ = make_channel_wire(std::move(channel), on_lost, events_.on_log);
    wire_->start();
  }
  /// `id` is that of the first request; raw JSON.
  Task<Status> discover(std::string id, SteadyTime deadline, EraFinding& finding) {
    // A server may refuse the first request only to say what it speaks.
    for (int attempt = 0; attempt < 2; ++attempt) {
      WireRequest request;
      request.id = attempt == 0 ? id : next_id();
      request.method = "server/discover";
      request.params = modern_params({}, meta_);
      request.deadline = deadline;
      request.handle = std::make_shared<CallHandle>();
      int status = 0;
      auto answer = co_await wire_->exchange(std::move(request), &status);
      if (status == 0 ? !answer : says_nothing(status))
        co_return answer ? http_status_error(status) : answer.error();
      if (!answer) {
        if (status >= 400) finding.verdict = Verdict::legacy;
        co_return answer.error();
      }
      if (!answer->is_error) {
        const std::string_view versions = raw::find(answer->payload, "supportedVersions");
        if (versions.empty() || raw::type_of(versions) != raw::Type::array) {
          finding.verdict = Verdict::legacy;
          co_return protocol_error("The server's answer to server/discover is none");
        }
        if (!names_version(versions)) co_return unsupported(versions, finding);
        finding.verdict = Verdict::modern;
        read_facts(answer->payload);
        if (listens()) home_.spawn(listen(shared_from_this()));
        co_return Status();
      }
      const auto code = raw::int_value(raw::find(answer->payload, "code")).value_or(0);
      if (!is_modern_code(code)) {
        finding.verdict = Verdict::legacy;
        co_return protocol_error("The server does not know server/discover");
      }
      if (code == rpc::kUnsupportedVersion) {
        const std::string_view versions = raw::find(raw::find(answer->payload, "data"), "supported");
        if (!names_version(versions)) co_return unsupported(versions, finding);
      } else if (attempt > 0) {
        break;
      }
    }
    finding.verdict = Verdict::modern;
    co_return protocol_error("The server refuses revision 2026-07-28, which it says it speaks");
  }

  Task<Result<UpstreamAnswer>> request(UpstreamCall call) override {
    if (!alive()) co_return session_lost_error();  // nothing of it was sent
    if (auto local = answered_here(call)) co_return std::move(*local);
    auto running = std::make_shared<Running>();
    running->hard = steady_clock::now() + call.max_timeout;
    running->timeout = call.timeout;
    running->observer = call.observer;
    running->number = number_.fetch_add(1, std::memory_order_relaxed);
    running->input = std::make_shared<Input>();
    {
      const std::lock_guard lock(mutex_);
      running_.emplace(running->number, running);
    }
    if (call.handle)
      call.handle->on_cancel([self = shared_from_this(), running](std::string reason) {
        self->abort(*running, std::move(reason));
      });
    auto result = co_await perform(call, running);
    if (call.handle) call.handle->on_cancel(nullptr);
    {
      const std::lock_guard lock(mutex_);
      running_.erase(running->number);
    }
    if (result || result.error().reason != "cancelled" || (call.handle && call.handle->cancelled()))
      co_return result;
    co_return closed_error("The connection was closed");
  }

  void notify(std::string, std::string) override {
    // Clients of this era notify of nothing but cancelled requests, which the wire does.
  }

  void respond(std::string id, std::string_view member, std::string payload) override {
    // "<call>:<key>", as ask() made it.
    const auto text = raw::string_value(id);
    const auto colon = text ? text->find(':') : std::string::npos;
    if (colon == std::string::npos) return;
    const auto number = raw::int_value(std::string_view(*text).substr(0, colon));
    std::shared_ptr<Running> running;
    {
      const std::lock_guard lock(mutex_);
      const auto it = number ? running_.find(*number) : running_.end();
      if (it != running_.end()) running = it->second;
    }
    if (running) running->input->put(text->substr(colon + 1), member == "result", std::move(payload));
  }

  void close() override {
    if (closed_.exchange(true)) return;
    std::vector<std::shared_ptr<Running>> running;
    std::shared_ptr<CallHandle> listening;
    std::shared_ptr<AsyncEvent> changed;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [number, one] : running_) running.push_back(one);
      listening = listening_;
      changed = changed_;
    }
    for (const auto& one : running) abort(*one, "the connection is closed");
    if (listening) listening->cancel("the connection is closed");
    if (changed) changed->set();
    wire_->close();
  }

 private:
  /// What a server asked for in one result, and what came back.
  struct Input {
    struct Asked {
      std::string method;
      bool answered = false;
      bool good = false;
      std::string payload;
    };

    void begin(std::map<std::string, Asked> questions) {
      const std::lock_guard lock(mutex);
      asked = std::move(questions);
      done = std::make_shared<AsyncEvent>();
    }
    void put(const std::string& key, bool good, std::string payload) {
      std::shared_ptr<AsyncEvent> complete;
      {
        const std::lock_guard lock(mutex);
        const auto it = asked.find(key);
        if (it == asked.end() || it->second.answered) return;
        it->second.answered = true;
        it->second.good = good;
        it->second.payload = std::move(payload);
        if (std::all_of(asked.begin(), asked.end(), [](const auto& one) { return one.second.answered; }))
          complete = done;
      }
      if (complete) complete->set();
    }

    std::mutex mutex;  // guards what follows
    std::map<std::string, Asked> asked;
    std::shared_ptr<AsyncEvent> done;
  };

  /// A call that runs.
  struct Running {
    std::int64_t number = 0;
    std::string id;  ///< of the try that is under way
    std::shared_ptr<CallObserver> observer;
    milliseconds timeout{0};
    SteadyTime hard, deadline;
    std::atomic<bool> aborted{false};
    std::shared_ptr<Input> input;
    std::shared_ptr<CallHandle> cancel;  ///< of the try that is under way; guarded by the upstream's mutex
  };

  /// Statuses that any server may give whatever it speaks.
  static bool says_nothing(int status) {
    return (status >= 300 && status < 400) || status == 401 || status == 403 || status == 407 ||
           status == 408 || status == 429 || status >= 500;
  }

  std::string next_id() { return std::to_string(next_id_.fetch_add(1, std::memory_order_relaxed)); }

  static Status unsupported(std::string_view versions, EraFinding& finding) {
    std::string spoken;
    bool legacy = false;
    for (const std::string_view one : raw::elements(versions)) {
      const auto text = raw::string_value(one);
      if (!text || text->size() > 32 || has_control(*text) || spoken.size() > 200) continue;
      legacy |= is_legacy_version(*text);
      spoken += (spoken.empty() ? "" : ", ") + *text;
    }
    finding.verdict = legacy ? Verdict::legacy : Verdict::modern;
    return protocol_error("The server speaks only these protocol versions: " + spoken);
  }

  void read_facts(std::string_view result) {
    facts_.protocol_version = kModernVersion;
    const std::string_view capabilities = raw::find(result, "capabilities");
    facts_.capabilities = !capabilities.empty() && raw::type_of(capabilities) == raw::Type::object
                              ? std::string(capabilities)
                              : std::string("{}");
    facts_.server_info = raw::find(raw::find(result, "_meta"), meta::kServerInfo);
    facts_.instructions = raw::string_value(raw::find(result, "instructions")).value_or("");
  }

  void abort(Running& running, std::string reason) {
    running.aborted.store(true);
    std::shared_ptr<CallHandle> cancel;
    {
      const std::lock_guard lock(mutex_);
      cancel = running.cancel;
    }
    if (cancel) cancel->cancel(std::move(reason));
    std::shared_ptr<AsyncEvent> waiting;
    {
      const std::lock_guard lock(running.input->mutex);
      waiting = running.input->done;
    }
    if (waiting) waiting->set();
  }

  /// Methods that this era has no longer: what they are for is part of each request, or of the listen stream.
  std::optional<UpstreamAnswer> answered_here(const UpstreamCall& call) {
    UpstreamAnswer out;
    out.payload = "{}";
    if (call.method == "ping") return out;
    if (call.method == "logging/setLevel") {
      const std::lock_guard lock(mutex_);
      meta_.log_level = raw::string_value(raw::find(call.params, "level")).value_or("");
      return out;
    }
    const bool on = call.method == "resources/subscribe";
    if (!on && call.method != "resources/unsubscribe") return std::nullopt;
    const auto uri = raw::string_value(raw::find(call.params, "uri"));
    if (!uri || !facts_.offers("resources", "subscribe")) {
      out.is_error = true;
      out.payload = R"({"code":-32601,"message":"The server has no subscriptions"})";
      return out;
    }
    std::shared_ptr<CallHandle> listening;
    std::shared_ptr<AsyncEvent> changed;
    {
      const std::lock_guard lock(mutex_);
      const bool news = on ? uris_.insert(*uri).second : uris_.erase(*uri) > 0;
      if (news) {
        listening = listening_;
        changed = changed_;
      }
    }
    if (changed) changed->set();
    if (listening) listening->cancel({});  // it is opened again with what is wanted now
    return out;
  }

  Task<Result<UpstreamAnswer>> perform(UpstreamCall& call, std::shared_ptr<Running> kept) {
    Running& running = *kept;
    std::string responses, state;
    bool has_state = false, listed = false;
    for (int attempt = 0; attempt < kMaxTries; ++attempt) {
      std::string params = call.params.empty() ? "{}" : call.params;
      if (!responses.empty()) params = raw::with_member(params, "inputResponses", responses);
      if (has_state) params = raw::with_member(params, "requestState", raw::quote(state));
      running.id = next_id();
      {
        const std::lock_guard lock(mutex_);
        running.cancel = std::make_shared<CallHandle>();
        params = modern_params(params, meta_);
      }
      if (running.aborted.load()) co_return cancelled_error();
      params = with_progress_token(params,
                                   call.wants_progress ? std::string_view(running.id) : std::string_view());
      running.deadline = std::min(running.hard, steady_clock::now() + running.timeout);
      auto answer = co_await exchange(call, std::move(params), kept);
      if (!answer) co_return answer;
      if (answer->is_error) {
        const auto code = raw::int_value(raw::find(answer->payload, "code")).value_or(0);
        if (code == rpc::kHeaderMismatch && call.method == "tools/call" && !listed) {
          // The tool's headers may be others by now: look once, and try again.
          listed = true;
          if (co_await list_tools(kept)) continue;
        }
        if (code == rpc::kUnsupportedVersion)
          lose(protocol_error("The server no longer speaks revision 2026-07-28"));
        if (!client_.exact) answer->payload = legacy_error(call.method, answer->payload);
        co_return answer;
      }
      if (!needs_input(answer->payload)) {
        if (const auto type = raw::string_value(raw::find(answer->payload, "resultType"));
            type && *type != "complete")
          co_return protocol_error("The server's result is of a type that is not known");
        if (call.method == "tools/list") learn_tools(call.params, answer->payload);
        if (!client_.exact) answer->payload = legacy_result(call.method, answer->payload);
        if (call.wants_progress) answer->progress_token = running.id;
        co_return answer;
      }
      if (named_by(call.method).empty())
        co_return protocol_error("The server asks for input where it must not");
      const auto given = raw::find(answer->payload, "requestState");
      has_state = !given.empty();
      state = has_state ? raw::string_value(given).value_or("") : std::string();
      responses.clear();
      const std::string_view questions = raw::find(answer->payload, "inputRequests");
      if (questions.empty()) {
        if (!has_state) co_return protocol_error("The server asks for input and does not say what");
        continue;
      }
      auto filled = co_await ask(call, running, questions);
      if (!filled) co_return filled.error();
      if (filled->instead) co_return std::move(*filled->instead);
      responses = std::move(filled->responses);
    }
    co_return protocol_error("The server asks for input again and again");
  }

  struct Filled {
    std::string responses;                  ///< an object
    std::optional<UpstreamAnswer> instead;  ///< the call ends with this: the client gave no input
  };

  /// Asks the call's client.
  Task<Result<Filled>> ask(const UpstreamCall& call, Running& running, std::string_view questions) {
    std::map<std::string, Input::Asked> asked;
    std::vector<ServerMessage> messages;
    for (const raw::Member& member : raw::members(questions)) {
      const auto key = raw::string_value("\"" + std::string(member.key) + "\"");
      const auto method = raw::string_value(raw::find(member.value, "method"));
      if (!key || !method || required_capabilities(*method, {}).empty())
        co_return protocol_error("The server asks for something that clients do not have");
      std::string params(raw::find(member.value, "params"));
      // Clients of before know an elicitation by an id that it has.
      if (!client_.exact && *method == "elicitation/create" &&
          raw::string_value(raw::find(params, "mode")) == "url")
        params = raw::with_member(params, "elicitationId",
                                  raw::quote(std::to_string(running.number) + ":" + *key));
      ServerMessage message;
      message.id = raw::quote(std::to_string(running.number) + ":" + *key);
      message.method = *method;
      message.params = std::move(params);
      message.key = *key;
      asked[*key].method = *method;
      messages.push_back(std::move(message));
    }
    if (messages.empty() || !running.observer)
      co_return protocol_error("The server asks for input, and nobody can give it");
    running.input->begin(std::move(asked));
    for (ServerMessage& message : messages) running.observer->on_server_message(std::move(message));
    std::shared_ptr<AsyncEvent> done;
    {
      const std::lock_guard lock(running.input->mutex);
      done = running.input->done;
    }
    const bool in_time = co_await done->wait(std::min(running.hard, steady_clock::now() + kInputWait));
    if (running.aborted.load()) co_return cancelled_error();
    if (!in_time)
      co_return Error(ErrorCode::deadline_exceeded, "upstream_timeout",
                      "The client did not answer the server in time");
    Filled out;
    out.responses = "{";
    const std::lock_guard lock(running.input->mutex);
    for (const auto& [key, one] : running.input->asked) {
      if (!one.good && one.method != "elicitation/create") {
        out.instead = refused(call.method, one.payload);
        co_return out;
      }
      if (out.responses.size() > 1) out.responses += ',';
      out.responses += raw::quote(key) + ":" + (one.good ? one.payload : R"({"action":"cancel"})");
    }
    out.responses += '}';
    co_return out;
  }

  /// How a call ends whose client gave no input: a tool has failed, which its result says.
  static UpstreamAnswer refused(std::string_view method, std::string_view error) {
    const std::string why = raw::string_value(raw::find(error, "message")).value_or("The client refused");
    UpstreamAnswer out;
    out.is_error = method != "tools/call";
    if (out.is_error)
      out.payload = R"({"code":-32603,"message":)" +
                    raw::quote("The server was not given what it asked for: " + why) + "}";
    else
      out.payload = R"({"content":[{"type":"text","text":)" +
                    raw::quote("The client did not give what the tool asked for: " + why) +
                    R"(}],"isError":true})";
    return out;
  }

  /// The trace that the request is part of, as this era writes it (MCP 2026-07-28, basic, "_meta"), whatever
  /// carries the message. A client that speaks of another trace than the gateway takes part in keeps its own.
  static std::string with_trace(std::string params, const HttpHeaders& headers) {
    const std::string* parent = find_header(headers, "traceparent");
    const auto given = raw::string_value(raw::find(raw::find(params, "_meta"), "traceparent"));
    if (parent != nullptr && given && !trace_id_of(*given).empty() &&
        trace_id_of(*given) != trace_id_of(*parent))
      return params;
    for (const char* name : {"traceparent", "tracestate", "baggage"}) {
      const std::string_view about = raw::find(params, "_meta");
      if (const std::string* value = find_header(headers, name))
        params = raw::with_member(params, "_meta", raw::with_member(about, name, raw::quote(*value)));
      else if (parent != nullptr && std::string_view(name) == "tracestate" && !raw::find(about, name).empty())
        params = raw::with_member(params, "_meta", raw::without_member(about, name));
    }
    return params;
  }

  /// One request and its answer, with what precedes that.
  Task<Result<UpstreamAnswer>> exchange(const UpstreamCall& call, std::string params,
                                        std::shared_ptr<Running> running) {
    WireRequest request;
    request.id = running->id;
    request.method = call.method;
    if (call.method == "tools/call") request.headers = tool_headers_of(params);
    for (const auto& header : call.headers) request.headers.push_back(header);
    request.params = with_trace(std::move(params), call.headers);
    request.deadline = running->deadline;
    request.client = running->observer ? running->observer->client() : nullptr;
    request.observer = running->observer;
    request.on_notification = [running, id = running->id](const Envelope& message) {
      return preceding(*running, id, message);
    };
    {
      const std::lock_guard lock(mutex_);
      request.handle = running->cancel;
    }
    co_return co_await wire_->exchange(std::move(request));
  }

  static std::optional<SteadyTime> preceding(Running& running, const std::string& id,
                                             const Envelope& message) {
    std::optional<SteadyTime> deadline;
    if (message.method == "notifications/progress") {
      if (raw::find(message.params, "progressToken") != id) return std::nullopt;
      deadline = std::min(running.hard, steady_clock::now() + running.timeout);
    } else if (message.method != "notifications/message") {
      return std::nullopt;
    }
    if (!running.observer) return deadline;
    ServerMessage out;
    out.method = message.method;
    out.params = message.params;
    running.observer->on_server_message(std::move(out));
    return deadline;
  }

  // --- headers of tools --------------------------------------------------------------------------

  HttpHeaders tool_headers_of(std::string_view params) {
    const auto name = raw::string_value(raw::find(params, "name"));
    std::vector<ToolHeader> declared;
    {
      const std::lock_guard lock(mutex_);
      const auto it = name ? tools_.find(*name) : tools_.end();
      if (it == tools_.end()) return {};
      declared = it->second;
    }
    return parameter_headers(declared, raw::find(params, "arguments"));
  }

  /// Keeps what calls need to know, and leaves out tools that must not be offered.
  void learn_tools(std::string_view params, std::string& result) {
    std::map<std::string, std::vector<ToolHeader>> found;
    for (const std::string_view tool : raw::elements(raw::find(result, "tools"))) {
      const auto name = raw::string_value(raw::find(tool, "name"));
      if (!name) continue;
      std::string why;
      auto headers = tool_headers(tool, &why);
      if (!headers)
        log(LogLevel::warn, "tool '" + name->substr(0, 100) + "' is left out: " + why);
      else if (!headers->empty())
        found.emplace(*name, std::move(*headers));
    }
    {
      const std::lock_guard lock(mutex_);
      if (raw::find(params, "cursor").empty()) tools_.clear();
      if (tools_.size() < kMaxTools)
        for (auto& [name, headers] : found) tools_[name] = std::move(headers);
    }
    result = without_invalid_tools(result);
  }

  Task<bool> list_tools(std::shared_ptr<Running> running) {
    std::string cursor;
    std::set<std::string> seen;
    for (int page = 0; page < 100; ++page) {
      UpstreamCall call;
      call.method = "tools/list";
      if (page > 0) call.params = R"({"cursor":)" + raw::quote(cursor) + "}";
      std::string params;
      running->id = next_id();
      {
        const std::lock_guard lock(mutex_);
        running->cancel = std::make_shared<CallHandle>();
        params = modern_params(call.params, meta_);
      }
      if (running->aborted.load()) co_return false;
      auto answer = co_await exchange(call, std::move(params), running);
      if (!answer || answer->is_error) co_return false;
      learn_tools(call.params, answer->payload);
      const auto next = raw::string_value(raw::find(answer->payload, "nextCursor"));
      if (!next || !seen.insert(*next).second) co_return true;
      cursor = *next;
    }
    co_return true;
  }

  // --- the listen stream -------------------------------------------------------------------------

  bool listens() const {
    return facts_.offers("tools", "listChanged") || facts_.offers("prompts", "listChanged") ||
           facts_.offers("resources", "listChanged") || facts_.offers("resources", "subscribe");
  }

  /// What is wanted now, as params; empty when that is nothing. `mutex_` is held.
  std::string filter_locked() const {
    std::string out;
    const auto add = [&out](const std::string& text) { out += (out.empty() ? "" : ",") + text; };
    if (facts_.offers("tools", "listChanged")) add(R"("toolsListChanged":true)");
    if (facts_.offers("prompts", "listChanged")) add(R"("promptsListChanged":true)");
    if (facts_.offers("resources", "listChanged")) add(R"("resourcesListChanged":true)");
    if (!uris_.empty()) {
      std::string uris;
      for (const std::string& uri : uris_) uris += (uris.empty() ? "" : ",") + raw::quote(uri);
      add(R"("resourceSubscriptions":[)" + uris + "]");
    }
    return out.empty() ? out : R"({"notifications":{)" + out + "}}";
  }

  static Task<void> listen(std::shared_ptr<ModernUpstream> self) {
    milliseconds backoff = kFirstBackoff;
    while (self->alive()) {
      auto changed = std::make_shared<AsyncEvent>();
      auto handle = std::make_shared<CallHandle>();
      std::string params;
      {
        const std::lock_guard lock(self->mutex_);
        params = self->filter_locked();
        if (!params.empty()) params = modern_params(params, self->meta_);
        self->listening_ = handle;
        self->changed_ = changed;
      }
      if (!self->alive()) co_return;
      if (params.empty()) {
        (void)co_await changed->wait(steady_clock::now() + std::chrono::hours(1));
        continue;
      }
      const bool heard = co_await self->listen_once(params, handle);
      if (!self->alive()) co_return;
      if (handle->cancelled()) {
        backoff = kFirstBackoff;
        continue;
      }
      backoff = heard ? kFirstBackoff : std::min(backoff * 2, kMaxBackoff);
      (void)co_await changed->wait(steady_clock::now() + backoff);
    }
  }

  /// Until the stream ends. Whether it was one.
  Task<bool> listen_once(std::string params, std::shared_ptr<CallHandle> handle) {
    const auto heard = std::make_shared<std::atomic<bool>>(false);
    WireRequest request;
    request.id = next_id();
    request.method = "subscriptions/listen";
    request.params = std::move(params);
    request.handle = std::move(handle);
    request.on_notification = [heard, events = events_](const Envelope& message) {
      heard->store(true);
      if (message.method != "notifications/subscriptions/acknowledged" && events.on_message) {
        ServerMessage out;
        out.method = message.method;
        out.params = legacy_params(message.params);
        events.on_message(std::move(out));
      }
      return std::optional<SteadyTime>();
    };
    (void)co_await wire_->exchange(std::move(request));
    co_return heard->load();
  }

  void lose(const Error& error) {
    if (closed_.load()) return;
    close();
    if (events_.on_lost) events_.on_lost(error);
  }

  void log(LogLevel level, std::string text) const {
    if (events_.on_log) events_.on_log(level, std::move(text));
  }

  // Set once, before the connection is shared.
  Loop& home_;
  const ClientFacts client_;
  const UpstreamEvents events_;
  std::shared_ptr<ModernWire> wire_;
  ServerFacts facts_;

  std::atomic<bool> closed_{false};
  std::atomic<std::int64_t> next_id_{2};
  std::atomic<std::int64_t> number_{1};

  std::mutex mutex_;  // guards what follows
  ModernMeta meta_;
  std::map<std::int64_t, std::shared_ptr<Running>> running_;
  std::shared_ptr<CallHandle> listening_;
  std::shared_ptr<AsyncEvent> changed_;  ///< set when what is listened to has changed
  std::set<std::string> uris_;
  std::map<std::string, std::vector<ToolHeader>> tools_;
};

}  // namespace

Task<Result<std::shared_ptr<Upstream>>> open_modern_upstream(Loop& home, HttpUpstreamOptions options,
                                                             ClientFacts client, UpstreamEvents events,
                                                             SteadyTime deadline, EraFinding& finding) {
  auto upstream = std::make_shared<ModernUpstream>(home, std::move(client), std::move(events));
  upstream->use_http(std::move(options));
  auto status =
      co_await upstream->discover("1", std::min(deadline, steady_clock::now() + kEraPatience), finding);
  if (!status) {
    upstream->close();
    co_return status.error();
  }
  co_return std::static_pointer_cast<Upstream>(upstream);
}

Task<Result<std::shared_ptr<Upstream>>> open_modern_channel_upstream(
    Loop& home, std::shared_ptr<MessageChannel> channel, ClientFacts client, UpstreamEvents events,
    SteadyTime deadline, EraFinding& finding) {
  // Nobody has it yet who could lose it.
  const auto opened = std::make_shared<std::atomic<bool>>(false);
  events.on_lost = [opened, tell = std::move(events.on_lost)](Error error) {
    if (opened->load() && tell) tell(std::move(error));
  };
  auto upstream = std::make_shared<ModernUpstream>(home, std::move(client), std::move(events));
  upstream->use_channel(std::move(channel));
  auto status = co_await upstream->discover(std::string(kProbeId), deadline, finding);
  opened->store(true);
  if (status && !upstream->alive()) status = closed_error("The server has gone");
  if (!status) {
    upstream->close();
    co_return status.error();
  }
  co_return std::static_pointer_cast<Upstream>(upstream);
}

}  // namespace mcpgw::detail
