#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "json/raw.hpp"
#include "mcpgw/testing.hpp"
#include "protocol/bridge.hpp"
#include "protocol/message.hpp"
#include "runtime/loop.hpp"

namespace mcpgw::testing {

using namespace detail;

namespace {

/// Handlers may block; this many at once.
constexpr unsigned kThreads = 8;

constexpr const char* kCapabilities =
    R"({"tools":{"listChanged":true},"resources":{"listChanged":true,"subscribe":true},)"
    R"("prompts":{"listChanged":true},"logging":{},"completions":{}})";
constexpr const char* kServerInfo = R"({"name":"fake","version":"1"})";

std::string strings(const std::vector<std::string>& all) {
  std::string out;
  for (const std::string& one : all) out += (out.empty() ? "[" : ",") + raw::quote(one);
  return out.empty() ? "[]" : out + "]";
}

/// What 2026-07-28 wants of a result, unless it is there.
std::string completed(std::string_view method, std::string result) {
  const auto set = [&result](std::string_view name, const std::string& value) {
    if (raw::find(result, name).empty()) result = raw::with_member(result, name, value);
  };
  set("resultType", R"("complete")");
  if (needs_input(result)) return result;
  if (method == "server/discover" || method == "resources/read" || method.ends_with("/list")) {
    set("ttlMs", "0");
    set("cacheScope", R"("private")");
  }
  return result;
}

/// params of a notification that belongs to a subscription; `id` is raw JSON.
std::string subscribed(std::string_view params, const std::string& id) {
  const std::string_view about = raw::find(params, "_meta");
  return raw::with_member(params, "_meta",
                          raw::with_member(about.empty() ? "{}" : about, meta::kSubscription, id));
}

/// What a client wants to hear of, by subscriptions/listen.
struct Subscription {
  std::string wanted;  ///< params.notifications as it came

  bool wants(std::string_view method, std::string_view params) const {
    if (method == "notifications/tools/list_changed") return raw::find(wanted, "toolsListChanged") == "true";
    if (method == "notifications/prompts/list_changed")
      return raw::find(wanted, "promptsListChanged") == "true";
    if (method == "notifications/resources/list_changed")
      return raw::find(wanted, "resourcesListChanged") == "true";
    const auto uri = raw::string_value(raw::find(params, "uri"));
    const auto uris = raw::elements(raw::find(wanted, "resourceSubscriptions"));
    return uri && std::any_of(uris.begin(), uris.end(),
                              [&](std::string_view one) { return raw::string_value(one) == uri; });
  }
};

/// Notifications that 2026-07-28 sends to whoever has subscribed to them, and to nobody else.
bool is_of_subscriptions(std::string_view method) {
  return method.ends_with("/list_changed") || method == "notifications/resources/updated";
}

}  // namespace

struct FakeUpstream::State {
  struct Tool {
    std::string json;
    Handler handler;
  };
  class Channel;

  explicit State(Era kind) : era(kind) {}

  const Era era;
  std::mutex mutex;  // guards what follows
  std::vector<std::string> versions = legacy_versions();
  std::vector<std::pair<std::string, Tool>> tools, resources, prompts;
  std::set<std::string> hanging, closing, garbage;
  std::map<std::string, FakeError> failing;
  std::vector<std::string> received;
  std::vector<std::weak_ptr<Channel>> channels;
  int connections = 0;
  WorkerPool pool{kThreads, 10000};

  std::vector<std::shared_ptr<Channel>> open_channels() {
    std::vector<std::shared_ptr<Channel>> out;
    const std::lock_guard lock(mutex);
    for (const auto& weak : channels)
      if (auto channel = weak.lock()) out.push_back(std::move(channel));
    return out;
  }
  void deliver_to_all(const std::string& message);

  /// Every revision that it speaks.
  std::vector<std::string> spoken() const {
    std::vector<std::string> out;
    if (era != Era::legacy) out.emplace_back(kModernVersion);
    if (era != Era::modern) out.insert(out.end(), versions.begin(), versions.end());
    return out;
  }
  FakeError unsupported(const std::string& asked) const {
    return {rpc::kUnsupportedVersion, "Unsupported protocol version",
            R"({"supported":)" + strings(spoken()) + R"(,"requested":)" + raw::quote(asked) + "}"};
  }

  static void set(std::vector<std::pair<std::string, Tool>>& list, const std::string& name, Tool tool) {
    for (auto& [known, entry] : list) {
      if (known != name) continue;
      entry = std::move(tool);
      return;
    }
    list.emplace_back(name, std::move(tool));
  }

  static std::string list(const char* member, const std::vector<std::pair<std::string, Tool>>& all) {
    std::string out = std::string("{\"") + member + "\":[";
    for (const auto& [name, entry] : all) {
      if (out.back() != '[') out += ',';
      out += entry.json;
    }
    return out + "]}";
  }
};

class FakeUpstream::State::Channel final : public MessageChannel,
                                           public std::enable_shared_from_this<Channel> {
 public:
  Channel(std::shared_ptr<State> state, UpstreamParameters parameters)
      : state_(std::move(state)), parameters_(std::move(parameters)) {}

  void start(Receiver receiver) override {
    const std::lock_guard in_turn(delivery_);
    receiver_ = std::move(receiver);
  }

  Status send(std::string message) override {
    {
      const std::lock_guard lock(mutex_);
      if (closed_) return Error(ErrorCode::unavailable, "upstream_closed", "The channel is closed");
    }
    {
      const std::lock_guard lock(state_->mutex);
      state_->received.push_back(message);
    }
    state_->pool.post([self = shared_from_this(), text = std::move(message)] { self->handle(text); });
    return {};
  }

  void close() override {
    const std::lock_guard in_turn(delivery_);
    const std::lock_guard lock(mutex_);
    closed_ = true;
    subscriptions_.clear();
  }

  void notify(const std::string& method, const std::string& params) {
    std::vector<std::string> to;
    bool modern = false;
    {
      const std::lock_guard lock(mutex_);
      modern = modern_;
      for (const auto& [id, one] : subscriptions_)
        if (one.wants(method, params)) to.push_back(id);
    }
    if (!modern || !is_of_subscriptions(method)) return deliver(make_notification(method, params));
    for (const std::string& id : to) deliver(make_notification(method, subscribed(params, id)));
  }

  int listeners() {
    const std::lock_guard lock(mutex_);
    return static_cast<int>(subscriptions_.size());
  }

  void deliver(std::string message) {
    const std::lock_guard in_turn(delivery_);
    {
      const std::lock_guard lock(mutex_);
      if (closed_) return;
    }
    if (receiver_.on_message) receiver_.on_message(std::move(message));
  }

  void end() {
    const std::lock_guard in_turn(delivery_);
    {
      const std::lock_guard lock(mutex_);
      if (closed_) return;
      closed_ = true;
      subscriptions_.clear();
    }
    if (receiver_.on_closed)
      receiver_.on_closed({ErrorCode::unavailable, "upstream_closed", "The server went away"});
  }

 private:
  void handle(const std::string& text) {
    auto read = read_envelope(text);
    const auto* message = std::get_if<Envelope>(&read);
    if (message == nullptr) return;
    if (message->method == "notifications/cancelled") {
      const std::lock_guard lock(mutex_);
      subscriptions_.erase(std::string(raw::find(message->params, "requestId")));
    }
    if (message->kind != Envelope::Kind::request) return;
    bool hangs, closes, rubbish;
    std::optional<FakeError> fails;
    {
      const std::lock_guard lock(state_->mutex);
      const auto broken = state_->failing.find(message->method);
      if (broken != state_->failing.end()) fails = broken->second;
      hangs = state_->hanging.contains(message->method);
      closes = state_->closing.contains(message->method);
      rubbish = state_->garbage.contains(message->method);
    }
    if (hangs) return;
    if (closes) return end();
    if (rubbish) {
      deliver("this is no JSON");
      return end();
    }
    try {
      if (fails) throw FakeError(*fails);
      if (auto result = answer(*message)) deliver(make_result(message->id, *result));
    } catch (const FakeError& error) {
      deliver(make_error(message->id, error.code, error.message, error.data));
    }
  }

  /// Nullopt: the answer is still to come.
  std::optional<std::string> answer(const Envelope& message) {
    const std::string_view about = raw::find(message.params, "_meta");
    const bool modern =
        state_->era == Era::modern || (state_->era == Era::both && !raw::find(about, meta::kVersion).empty());
    if (!modern) return legacy_answer(message);
    check_modern(message, about);
    {
      const std::lock_guard lock(mutex_);
      modern_ = true;
    }
    if (message.method == "subscriptions/listen") {
      listen(message);
      return std::nullopt;
    }
    if (message.method == "server/discover") {
      const std::lock_guard lock(state_->mutex);
      return completed(message.method, R"({"supportedVersions":)" + strings(state_->spoken()) +
                                           R"(,"capabilities":)" + kCapabilities + R"(,"_meta":{)" +
                                           raw::quote(meta::kServerInfo) + ":" + kServerInfo + "}}");
    }
    return completed(message.method, of_both(message, std::string(kModernVersion)));
  }

  /// Refuses what a server of 2026-07-28 must refuse.
  void check_modern(const Envelope& message, std::string_view about) const {
    const std::lock_guard lock(state_->mutex);
    // A handshake is of a revision that it does not speak.
    if (message.method == "initialize")
      throw state_->unsupported(raw::string_value(raw::find(message.params, "protocolVersion")).value_or(""));
    const auto version = raw::string_value(raw::find(about, meta::kVersion));
    if (!version) throw FakeError{rpc::kInvalidParams, "_meta names no protocol version"};
    if (!is_modern_version(*version)) throw state_->unsupported(*version);
    const std::string_view capabilities = raw::find(about, meta::kCapabilities);
    if (capabilities.empty() || raw::type_of(capabilities) != raw::Type::object)
      throw FakeError{rpc::kInvalidParams, "_meta does not tell the client's capabilities"};
  }

  void listen(const Envelope& message) {
    const std::string id(message.id);
    const std::string wanted(raw::find(message.params, "notifications"));
    if (wanted.empty() || raw::type_of(wanted) != raw::Type::object)
      throw FakeError{rpc::kInvalidParams, "notifications is missing"};
    // Nothing may come before this.
    deliver(make_notification("notifications/subscriptions/acknowledged",
                              subscribed(R"({"notifications":)" + wanted + "}", id)));
    const std::lock_guard lock(mutex_);
    if (!closed_) subscriptions_[id] = {wanted};
  }

  std::string legacy_answer(const Envelope& message) {
    const std::string& method = message.method;
    if (method == "initialize") {
      const auto asked = raw::string_value(raw::find(message.params, "protocolVersion")).value_or("");
      std::string version;
      {
        const std::lock_guard lock(state_->mutex);
        const auto& known = state_->versions;
        version = std::find(known.begin(), known.end(), asked) != known.end() ? asked : known.front();
      }
      const std::lock_guard lock(mutex_);
      version_ = version;
      return R"({"protocolVersion":)" + raw::quote(version) + R"(,"capabilities":)" + kCapabilities +
             R"(,"serverInfo":)" + kServerInfo + "}";
    }
    if (method == "ping" || method == "logging/setLevel" || method == "resources/subscribe" ||
        method == "resources/unsubscribe")
      return "{}";
    std::string version;
    {
      const std::lock_guard lock(mutex_);
      version = version_;
    }
    return of_both(message, std::move(version));
  }

  /// What is the same in all revisions.
  std::string of_both(const Envelope& message, std::string version) {
    const std::string& method = message.method;
    State& state = *state_;
    std::unique_lock lock(state.mutex);
    if (method == "tools/list") return State::list("tools", state.tools);
    if (method == "resources/list") return State::list("resources", state.resources);
    if (method == "resources/templates/list") return R"({"resourceTemplates":[]})";
    if (method == "prompts/list") return State::list("prompts", state.prompts);
    if (method == "completion/complete") return R"({"completion":{"values":["one","two"]}})";
    const auto* list = method == "tools/call"       ? &state.tools
                       : method == "resources/read" ? &state.resources
                       : method == "prompts/get"    ? &state.prompts
                                                    : nullptr;
    if (list == nullptr) throw FakeError{rpc::kMethodNotFound, "Method not found"};
    Call call;
    call.method = method;
    call.name = raw::string_value(raw::find(message.params, method == "resources/read" ? "uri" : "name"))
                    .value_or("");
    call.arguments = raw::find(message.params, "arguments");
    call.params = message.params;
    call.connection = parameters_;
    call.version = std::move(version);
    const bool modern = is_modern_version(call.version);
    if (modern) {
      call.input_responses = raw::find(message.params, "inputResponses");
      call.request_state = raw::string_value(raw::find(message.params, "requestState")).value_or("");
    }
    const std::string token(raw::find(raw::find(message.params, "_meta"), "progressToken"));
    call.progress = [self = shared_from_this(), token](double progress, double total) {
      if (token.empty()) return;
      self->deliver(
          make_notification("notifications/progress", R"({"progressToken":)" + token + R"(,"progress":)" +
                                                          std::to_string(progress) + R"(,"total":)" +
                                                          std::to_string(total) + "}"));
    };
    for (const auto& [name, entry] : *list) {
      if (name != call.name) continue;
      const Handler handler = entry.handler;
      lock.unlock();
      return handler(call);
    }
    if (method == "resources/read")
      throw FakeError{modern ? rpc::kInvalidParams : rpc::kResourceNotFound, "Resource not found"};
    throw FakeError{rpc::kInvalidParams, "Unknown name"};
  }

  const std::shared_ptr<State> state_;
  const UpstreamParameters parameters_;
  /// One call of the receiver at a time, which may itself send and close.
  std::recursive_mutex delivery_;
  Receiver receiver_;  // guarded by delivery_
  std::mutex mutex_;   // guards what follows
  bool closed_ = false;
  bool modern_ = false;                                ///< it has been asked something of that era
  std::string version_;                                ///< of the handshake
  std::map<std::string, Subscription> subscriptions_;  ///< by the id of the request, raw JSON
};

void FakeUpstream::State::deliver_to_all(const std::string& message) {
  for (const auto& channel : open_channels()) channel->deliver(message);
}

FakeUpstream::FakeUpstream(Era era) : state_(std::make_shared<State>(era)) {}

FakeUpstream::~FakeUpstream() { state_->pool.stop_and_join(); }

FakeUpstream::Era FakeUpstream::era() const { return state_->era; }

void FakeUpstream::set_legacy_versions(std::vector<std::string> versions) {
  if (versions.empty()) throw std::invalid_argument("a server speaks at least one revision");
  const std::lock_guard lock(state_->mutex);
  state_->versions = std::move(versions);
}

std::string FakeUpstream::text(const std::string& value) {
  return R"({"content":[{"type":"text","text":)" + raw::quote(value) + "}]}";
}

std::string FakeUpstream::input_required(const std::string& requests, const std::string& state) {
  std::string out = R"({"resultType":"input_required","inputRequests":)" + requests;
  if (!state.empty()) out += R"(,"requestState":)" + raw::quote(state);
  return out + "}";
}

void FakeUpstream::add_tool(const std::string& name, Handler handler, const std::string& schema) {
  add_raw_tool(name, R"({"name":)" + raw::quote(name) + R"(,"inputSchema":)" + schema + "}",
               std::move(handler));
}

void FakeUpstream::add_raw_tool(const std::string& name, const std::string& json, Handler handler) {
  const std::lock_guard lock(state_->mutex);
  State::set(state_->tools, name, {json, std::move(handler)});
}

void FakeUpstream::add_resource(const std::string& uri, Handler handler) {
  const std::lock_guard lock(state_->mutex);
  State::set(state_->resources, uri,
             {R"({"uri":)" + raw::quote(uri) + R"(,"name":)" + raw::quote(uri) + "}", std::move(handler)});
}

void FakeUpstream::add_prompt(const std::string& name, Handler handler) {
  const std::lock_guard lock(state_->mutex);
  State::set(state_->prompts, name, {R"({"name":)" + raw::quote(name) + "}", std::move(handler)});
}

void FakeUpstream::hang(const std::string& method) {
  const std::lock_guard lock(state_->mutex);
  state_->hanging.insert(method);
}

void FakeUpstream::close_on(const std::string& method) {
  const std::lock_guard lock(state_->mutex);
  state_->closing.insert(method);
}

void FakeUpstream::garbage_on(const std::string& method) {
  const std::lock_guard lock(state_->mutex);
  state_->garbage.insert(method);
}

void FakeUpstream::fail_on(const std::string& method, FakeError error) {
  const std::lock_guard lock(state_->mutex);
  state_->failing[method] = std::move(error);
}

void FakeUpstream::heal() {
  const std::lock_guard lock(state_->mutex);
  state_->failing.clear();
  state_->hanging.clear();
  state_->closing.clear();
  state_->garbage.clear();
}

void FakeUpstream::notify(const std::string& method, const std::string& params) {
  for (const auto& channel : state_->open_channels()) channel->notify(method, params);
}

void FakeUpstream::ask(const std::string& id, const std::string& method, const std::string& params) {
  state_->deliver_to_all(make_request(raw::quote(id), method, params));
}

void FakeUpstream::deliver(const std::string& message) { state_->deliver_to_all(message); }

std::vector<std::string> FakeUpstream::received() const {
  const std::lock_guard lock(state_->mutex);
  return state_->received;
}

std::vector<std::string> FakeUpstream::received(const std::string& method) const {
  std::vector<std::string> out;
  for (std::string& message : received())
    if (raw::string_value(raw::find(message, "method")) == method) out.push_back(std::move(message));
  return out;
}

int FakeUpstream::connections() const {
  const std::lock_guard lock(state_->mutex);
  return state_->connections;
}

int FakeUpstream::listeners() const {
  int out = 0;
  for (const auto& channel : state_->open_channels()) out += channel->listeners();
  return out;
}

Result<std::shared_ptr<MessageChannel>> FakeUpstream::connect(const UpstreamParameters& parameters) {
  auto channel = std::make_shared<State::Channel>(state_, parameters);
  const std::lock_guard lock(state_->mutex);
  ++state_->connections;
  std::erase_if(state_->channels, [](const auto& weak) { return weak.expired(); });
  state_->channels.push_back(channel);
  return std::static_pointer_cast<MessageChannel>(channel);
}

}  // namespace mcpgw::testing
