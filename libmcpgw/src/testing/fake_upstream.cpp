#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "json/raw.hpp"
#include "mcpgw/testing.hpp"
#include "protocol/message.hpp"
#include "runtime/loop.hpp"

namespace mcpgw::testing {

using namespace detail;

namespace {
/// Handlers may block; this many at once.
constexpr unsigned kThreads = 8;
}  // namespace

struct FakeUpstream::State {
  struct Tool {
    std::string json;
    Handler handler;
  };
  class Channel;

  std::mutex mutex;
  std::vector<std::pair<std::string, Tool>> tools, resources, prompts;
  std::set<std::string> hanging, closing, garbage;
  std::vector<std::string> received;
  std::vector<std::weak_ptr<Channel>> channels;
  int connections = 0;
  WorkerPool pool{kThreads, 10000};

  static void deliver_to_all(State& state, const std::string& message);
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
    }
    if (receiver_.on_closed)
      receiver_.on_closed({ErrorCode::unavailable, "upstream_closed", "The server went away"});
  }

 private:
  void handle(const std::string& text) {
    auto read = read_envelope(text);
    const auto* message = std::get_if<Envelope>(&read);
    if (message == nullptr || message->kind != Envelope::Kind::request) return;
    bool hangs, closes, rubbish;
    {
      const std::lock_guard lock(state_->mutex);
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
      deliver(make_result(message->id, answer(*message)));
    } catch (const FakeError& error) {
      deliver(make_error(message->id, error.code, error.message));
    }
  }

  std::string answer(const Envelope& message) {
    const std::string& method = message.method;
    State& state = *state_;
    std::unique_lock lock(state.mutex);
    if (method == "initialize") {
      const auto version = raw::string_value(raw::find(message.params, "protocolVersion")).value_or("");
      return R"({"protocolVersion":)" + raw::quote(is_legacy_version(version) ? version : "2025-11-25") +
             R"(,"capabilities":{"tools":{"listChanged":true},"resources":{"listChanged":true,"subscribe":true},)" +
             R"("prompts":{"listChanged":true},"logging":{},"completions":{}},)" +
             R"("serverInfo":{"name":"fake","version":"1"}})";
    }
    if (method == "ping" || method == "logging/setLevel" || method == "resources/subscribe" ||
        method == "resources/unsubscribe")
      return "{}";
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
    if (method == "resources/read") throw FakeError{rpc::kResourceNotFound, "Resource not found"};
    throw FakeError{rpc::kInvalidParams, "Unknown name"};
  }

  const std::shared_ptr<State> state_;
  const UpstreamParameters parameters_;
  /// One call of the receiver at a time, which may itself send and close.
  std::recursive_mutex delivery_;
  Receiver receiver_;  // guarded by delivery_
  std::mutex mutex_;   // guards what follows
  bool closed_ = false;
};

void FakeUpstream::State::deliver_to_all(State& state, const std::string& message) {
  std::vector<std::shared_ptr<Channel>> channels;
  {
    const std::lock_guard lock(state.mutex);
    for (const auto& weak : state.channels)
      if (auto channel = weak.lock()) channels.push_back(std::move(channel));
  }
  for (const auto& channel : channels) channel->deliver(message);
}

FakeUpstream::FakeUpstream() : state_(std::make_shared<State>()) {}

FakeUpstream::~FakeUpstream() { state_->pool.stop_and_join(); }

std::string FakeUpstream::text(const std::string& value) {
  return R"({"content":[{"type":"text","text":)" + raw::quote(value) + "}]}";
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

void FakeUpstream::heal() {
  const std::lock_guard lock(state_->mutex);
  state_->hanging.clear();
  state_->closing.clear();
  state_->garbage.clear();
}

void FakeUpstream::notify(const std::string& method, const std::string& params) {
  State::deliver_to_all(*state_, make_notification(method, params));
}

void FakeUpstream::ask(const std::string& id, const std::string& method, const std::string& params) {
  State::deliver_to_all(*state_, make_request(raw::quote(id), method, params));
}

void FakeUpstream::deliver(const std::string& message) { State::deliver_to_all(*state_, message); }

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

Result<std::shared_ptr<MessageChannel>> FakeUpstream::connect(const UpstreamParameters& parameters) {
  auto channel = std::make_shared<State::Channel>(state_, parameters);
  const std::lock_guard lock(state_->mutex);
  ++state_->connections;
  std::erase_if(state_->channels, [](const auto& weak) { return weak.expired(); });
  state_->channels.push_back(channel);
  return std::static_pointer_cast<MessageChannel>(channel);
}

}  // namespace mcpgw::testing
