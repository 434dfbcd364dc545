// Servers at the other end of a pipe: which era they are found to be of, and those of 2026-07-28.
#include <condition_variable>
#include <deque>
#include <thread>

#include "json/raw.hpp"
#include "support/upstream_support.hpp"
#include "upstream/modern_upstream.hpp"

namespace {

using Verdict = EraFinding::Verdict;
using raw::find;
using raw::quote;
using Answer = Result<UpstreamAnswer>;

/// A scripted server: its script gets each message, and sends what it likes, on a thread of its own.
class Pipe final : public MessageChannel {
 public:
  using Script = std::function<void(Pipe&, const std::string& message, const std::string& method)>;
  explicit Pipe(Script script) : script_(std::move(script)), thread_([this] { work(); }) {}
  /// Ends its thread. Its last owner may be what that thread just called: not the destructor's to wait.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

  void start(Receiver receiver) override {
    const std::lock_guard lock(mutex_);
    REQUIRE_FALSE(std::exchange(started_, true));
    receiver_ = std::move(receiver);
    ended_ = gone_at_once;
    if (ended_) receiver_.on_closed(Error(ErrorCode::unavailable, "upstream_closed", "exited with code 3"));
  }
  Status send(std::string message) override {
    {
      const std::lock_guard lock(mutex_);
      if (ended_) return Error(ErrorCode::unavailable, "upstream_closed", "gone");
      received_.push_back(message);
      todo_.push_back(std::move(message));
    }
    wake_.notify_all();
    return {};
  }
  void close() override {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }

  // --- of the script ---
  void say(const std::string& message) {
    if (!closed()) receiver_.on_message(message);
  }
  void result(const std::string& to, const std::string& what) {
    say(R"({"jsonrpc":"2.0","id":)" + std::string(find(to, "id")) + R"(,"result":)" + what + "}");
  }
  void error(const std::string& to, int code, const std::string& data = {}) {
    say(R"({"jsonrpc":"2.0","id":)" + std::string(find(to, "id")) + R"(,"error":{"code":)" +
        std::to_string(code) + R"(,"message":"no")" + (data.empty() ? "" : R"(,"data":)" + data) + "}}");
  }
  void end() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      if (closed_) return;
    }
    receiver_.on_closed(Error(ErrorCode::unavailable, "upstream_closed", "exited with code 3"));
  }

  /// Before start(): it has ended by then.
  bool gone_at_once = false;

  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  std::vector<std::string> received(const std::string& method = {}) const {
    std::vector<std::string> out;
    const std::lock_guard lock(mutex_);
    for (const std::string& one : received_)
      if (method.empty() || raw::string_value(find(one, "method")) == method) out.push_back(one);
    return out;
  }

 private:
  void work() {
    for (;;) {
      std::string message;
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] { return over_ || !todo_.empty(); });
        if (over_) return;
        message = std::move(todo_.front());
        todo_.pop_front();
      }
      script_(*this, message, raw::string_value(find(message, "method")).value_or(""));
    }
  }

  const Script script_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::string> todo_;
  std::vector<std::string> received_;
  Receiver receiver_;
  bool started_ = false, closed_ = false, ended_ = false, over_ = false;
  std::thread thread_;
};

constexpr const char* kDiscovered =
    R"({"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true}}})";
constexpr const char* kInitialized =
    R"({"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"old","version":"1"}})";

/// A server of 2026-07-28; `more` gets what it does not answer itself.
Pipe::Script modern(Pipe::Script more = nullptr) {
  return [more](Pipe& pipe, const std::string& message, const std::string& method) {
    if (method == "server/discover") return pipe.result(message, kDiscovered);
    if (method == "subscriptions/listen")
      return pipe.say(
          R"({"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":)" +
          std::string(find(message, "id")) + R"(},"notifications":{}}})");
    if (more) return more(pipe, message, method);
    if (!find(message, "id").empty()) pipe.error(message, -32601);
  };
}

/// One of before, which knows no other era.
void legacy(Pipe& pipe, const std::string& message, const std::string& method) {
  if (method == "initialize") return pipe.result(message, kInitialized);
  if (method == "tools/call") return pipe.result(message, R"({"content":[]})");
  if (!find(message, "id").empty()) pipe.error(message, -32601);
}

struct Stand : Fixture {
  explicit Stand(Pipe::Script script) : pipe(std::make_shared<Pipe>(std::move(script))) {}
  ~Stand() { pipe->stop(); }
  Opened open(std::chrono::milliseconds limit = 20s) {
    return on_loop<Opened>(*runtime, [&, this] {
      UpstreamEvents events;
      events.on_message = [this](const ServerMessage& message) {
        const std::lock_guard lock(mutex);
        heard.push_back(message);
      };
      events.on_lost = [this](const Error&) { ++gone; };
      return open_any_channel_upstream(*Loop::current(), pipe, facts, events,
                                       std::chrono::steady_clock::now() + limit, finding);
    });
  }
  std::size_t count() const {
    const std::lock_guard lock(mutex);
    return heard.size();
  }

  EraFinding finding;
  std::atomic<int> gone{0};
  mutable std::mutex mutex;
  std::vector<ServerMessage> heard;
  std::shared_ptr<Pipe> pipe;
};

template <class F>
bool eventually(F&& condition) {
  const auto until = std::chrono::steady_clock::now() + 20s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(2ms);
  }
  return true;
}

std::string log_line(const char* text) {
  return R"({"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":")" +
         std::string(text) + R"("}})";
}

}  // namespace

TEST_CASE("a server of 2026-07-28 is asked once, and never initialised") {
  Stand s(modern([](Pipe& pipe, const std::string& message, const std::string& method) {
    if (method == "tools/call") pipe.result(message, R"({"resultType":"complete","content":[]})");
  }));
  const auto up = s.open();
  REQUIRE(up);
  CHECK(s.finding.verdict == Verdict::modern);
  CHECK((*up)->facts().protocol_version == "2026-07-28");
  CHECK((*up)->transport() == "stdio");
  CHECK(s.pipe->received().front().find(R"("id":"mcpgw-discover")") != std::string::npos);
  CHECK(s.call(*up, "tools/call", R"({"name":"a"})"));
  CHECK(s.pipe->received("initialize").empty());
  for (const std::string& one : s.pipe->received()) {
    const auto about = find(find(one, "params"), "_meta");
    CHECK(find(about, "io.modelcontextprotocol/protocolVersion") == "\"2026-07-28\"");
    CHECK(one.find('\n') == std::string::npos);
  }
  (*up)->close();
  CHECK(s.pipe->closed());
}

TEST_CASE("whatever is no answer of that era means the handshake, on the same pipe") {
  struct Row {
    const char* what;
    std::function<void(Pipe&, const std::string&)> answer;
  };
  const Row rows[] = {
      {"unknown method", [](Pipe& p, const std::string& m) { p.error(m, -32601); }},
      {"invalid params", [](Pipe& p, const std::string& m) { p.error(m, -32602); }},
      {"not initialised", [](Pipe& p, const std::string& m) { p.error(m, -32000); }},
      {"an unknown version, and older ones spoken",
       [](Pipe& p, const std::string& m) { p.error(m, -32022, R"({"supported":["2025-11-25"]})"); }},
      {"a result of something else", [](Pipe& p, const std::string& m) { p.result(m, "{}"); }},
      {"older versions alone",
       [](Pipe& p, const std::string& m) { p.result(m, R"({"supportedVersions":["2025-06-18"]})"); }},
  };
  for (const Row& row : rows) {
    CAPTURE(row.what);
    Stand s([&row](Pipe& pipe, const std::string& message, const std::string& method) {
      if (method == "server/discover") return row.answer(pipe, message);
      legacy(pipe, message, method);
    });
    const auto up = s.open();
    REQUIRE(up);
    CHECK(s.finding.verdict == Verdict::legacy);
    CHECK((*up)->facts().protocol_version == "2025-11-25");
    CHECK(s.call(*up, "tools/call", R"({"name":"a"})"));
    CHECK(s.pipe->received("initialize").size() == 1);
    (*up)->close();
    CHECK(s.pipe->closed());
  }
}

TEST_CASE("a server of another new revision is not initialised: the error names what it speaks") {
  Stand s([](Pipe& pipe, const std::string& message, const std::string&) {
    pipe.error(message, -32022, R"({"supported":["2099-01-01"]})");
  });
  const auto up = s.open();
  REQUIRE_FALSE(up);
  CHECK(up.error().reason == "upstream_protocol_error");
  CHECK(up.error().message.find("2099-01-01") != std::string::npos);
  CHECK(s.finding.verdict == Verdict::modern);
  CHECK(s.pipe->received("initialize").empty());
  CHECK(s.pipe->closed());
}

TEST_CASE("a server that is silent is initialised; one that only started slowly is believed") {
  for (const bool slow : {false, true}) {
    CAPTURE(slow);
    auto asked = std::make_shared<std::string>();
    Stand s([slow, asked](Pipe& pipe, const std::string& message, const std::string& method) {
      if (method == "server/discover") {
        const bool first = asked->empty();
        *asked = message;
        if (!first) pipe.result(message, kDiscovered);
      } else if (slow && method == "initialize") {
        pipe.error(message, -32601);
        pipe.result(*asked, kDiscovered);
      } else {
        legacy(pipe, message, method);
      }
    });
    const auto up = s.open();
    REQUIRE(up);
    CHECK((s.finding.verdict == Verdict::modern) == slow);
    CHECK((*up)->facts().protocol_version == (slow ? "2026-07-28" : "2025-11-25"));
    CHECK(s.pipe->received("notifications/cancelled").empty());
    (*up)->close();
  }
}

TEST_CASE("a server that dies of the question is told apart from one that does not answer it") {
  Stand s([](Pipe& pipe, const std::string&, const std::string&) { pipe.end(); });
  const auto up = s.open();
  REQUIRE_FALSE(up);
  CHECK(up.error().reason == "upstream_closed");
  CHECK(s.finding.ended);
  CHECK(s.finding.verdict == Verdict::unknown);
  CHECK(s.gone == 0);  // nobody had it yet
}

TEST_CASE("a server that has gone before anybody listens is as gone as any") {
  Stand s(modern());
  s.pipe->gone_at_once = true;
  const auto up = s.open();
  REQUIRE_FALSE(up);
  CHECK(up.error().reason == "upstream_closed");
  CHECK(up.error().message.find("code 3") != std::string::npos);
  CHECK(s.finding.ended);
  CHECK(s.gone == 0);
}

TEST_CASE("progress and log lines reach the call that they belong to, or nobody") {
  std::mutex mutex;
  std::vector<std::string> waiting;
  Stand s(modern([&](Pipe& pipe, const std::string& message, const std::string& method) {
    if (method != "tools/call") return;
    const std::lock_guard lock(mutex);
    waiting.push_back(message);
    const auto token = std::string(find(find(find(message, "params"), "_meta"), "progressToken"));
    pipe.say(R"({"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":)" + token +
             R"(,"progress":1}})");
    pipe.say(log_line(waiting.size() == 1 ? "alone" : "whose?"));
    if (waiting.size() < 2) return;
    for (const std::string& one : waiting) pipe.result(one, R"({"content":[]})");
  }));
  const auto up = s.open();
  REQUIRE(up);
  const auto a = std::make_shared<Recorder>(), b = std::make_shared<Recorder>();
  auto first = s.start(*up, "tools/call", R"({"name":"a"})", 20s, a);
  REQUIRE(eventually([&] { return a->all().size() == 2; }));
  auto second = s.start(*up, "tools/call", R"({"name":"b"})", 20s, b);
  CHECK(first.get());
  CHECK(second.get());
  REQUIRE(a->all().size() == 2);
  CHECK(a->all()[0].method == "notifications/progress");
  CHECK(a->all()[1].params.find("alone") != std::string::npos);
  REQUIRE(b->all().size() == 1);  // while both ran, a line of the log was nobody's
  CHECK(b->all()[0].method == "notifications/progress");
  (*up)->close();
}

TEST_CASE("a call that is given up is cancelled under its own id") {
  Stand s(modern([](Pipe&, const std::string&, const std::string&) {}));
  const auto up = s.open();
  REQUIRE(up);
  const auto handle = std::make_shared<CallHandle>();
  auto running = s.start(*up, "tools/call", R"({"name":"a"})", 20s, nullptr, handle);
  REQUIRE(eventually([&] { return s.pipe->received("tools/call").size() == 1; }));
  handle->cancel("enough");
  const auto answer = running.get();
  REQUIRE_FALSE(answer);
  CHECK(answer.error().reason == "cancelled");
  REQUIRE(eventually([&] { return s.pipe->received("notifications/cancelled").size() == 1; }));
  const std::string told = s.pipe->received("notifications/cancelled")[0];
  CHECK(find(find(told, "params"), "requestId") == find(s.pipe->received("tools/call")[0], "id"));
  CHECK(find(find(told, "params"), "reason") == "\"enough\"");

  const auto late = s.call(*up, "tools/call", R"({"name":"b"})", 50ms);
  REQUIRE_FALSE(late);
  CHECK(late.error().reason == "upstream_timeout");
  CHECK(eventually([&] { return s.pipe->received("notifications/cancelled").size() == 2; }));
  (*up)->close();
}

TEST_CASE("what a server asks for in a result is asked of the client, and goes into another try") {
  Stand s(modern([](Pipe& pipe, const std::string& message, const std::string&) {
    const auto params = find(message, "params");
    if (find(params, "inputResponses").empty())
      pipe.result(
          message,
          R"({"resultType":"input_required","requestState":"s 1","inputRequests":{"who":{"method":"roots/list"}}})");
    else
      pipe.result(message, R"({"resultType":"complete","content":[]})");
  }));
  const auto up = s.open();
  REQUIRE(up);
  const auto client = std::make_shared<Recorder>();
  auto running = s.start(*up, "tools/call", R"({"name":"a"})", 20s, client);
  REQUIRE(eventually([&] { return client->all().size() == 1; }));
  CHECK(client->all()[0].key == "who");
  (*up)->respond(client->all()[0].id, "result", R"({"roots":[]})");
  CHECK(running.get());
  const auto tries = s.pipe->received("tools/call");
  REQUIRE(tries.size() == 2);
  CHECK(find(tries[0], "id") != find(tries[1], "id"));
  CHECK(find(find(tries[1], "params"), "requestState") == "\"s 1\"");
  CHECK(find(find(tries[1], "params"), "inputResponses") == R"({"who":{"roots":[]}})");
  (*up)->close();
}

TEST_CASE("changes are heard under the id of the subscription, which is made again when it ends") {
  Stand s(modern());
  const auto up = s.open();
  REQUIRE(up);
  REQUIRE(eventually([&] { return s.pipe->received("subscriptions/listen").size() == 1; }));
  const std::string listen = s.pipe->received("subscriptions/listen")[0];
  CHECK(find(find(listen, "params"), "notifications") == R"({"toolsListChanged":true})");
  const auto changed = [&](const std::string& id) {
    s.pipe->say(
        R"({"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":)" +
        id + "}}}");
  };
  changed("77");
  s.pipe->say(R"({"jsonrpc":"2.0","method":"notifications/tools/list_changed"})");
  changed(std::string(find(listen, "id")));
  REQUIRE(eventually([&] { return s.count() == 1; }));
  CHECK(s.heard[0].method == "notifications/tools/list_changed");
  CHECK(s.heard[0].params == "{}");

  // What is listened to changes: the server is told, and asked anew.
  CHECK(s.call(*up, "resources/subscribe", R"({"uri":"x:1"})"));
  REQUIRE(eventually([&] { return s.pipe->received("subscriptions/listen").size() == 2; }));
  CHECK(s.pipe->received("notifications/cancelled").size() == 1);
  const std::string second = s.pipe->received("subscriptions/listen")[1];
  CHECK(find(find(find(second, "params"), "notifications"), "resourceSubscriptions") == R"(["x:1"])");
  // The server ends it in good order.
  s.pipe->result(second, R"({"resultType":"complete"})");
  CHECK(eventually([&] { return s.pipe->received("subscriptions/listen").size() == 3; }));
  (*up)->close();
}

TEST_CASE("a pipe that breaks ends what runs, and is told once") {
  Stand s(modern([](Pipe& pipe, const std::string&, const std::string& method) {
    if (method == "tools/call") pipe.end();
  }));
  const auto up = s.open();
  REQUIRE(up);
  const auto answer = s.call(*up, "tools/call", R"({"name":"a"})");
  REQUIRE_FALSE(answer);
  CHECK(answer.error().reason == "upstream_closed");
  CHECK(answer.error().message.find("code 3") != std::string::npos);
  CHECK_FALSE((*up)->alive());
  CHECK(eventually([&] { return s.gone == 1; }));  // told behind the answers
  // Nothing of this one was sent: it may go to another connection.
  const auto next = s.call(*up, "tools/call", R"({"name":"a"})");
  REQUIRE_FALSE(next);
  CHECK(next.error().reason == "session_lost");
  CHECK(s.gone == 1);
}

TEST_CASE("what such a server must not send is skipped") {
  Stand s(modern([](Pipe& pipe, const std::string& message, const std::string& method) {
    if (method != "tools/call") return;
    pipe.say("not json");
    pipe.say("[]");
    pipe.say(R"({"jsonrpc":"2.0","id":)" + std::string(find(message, "id")) + R"(,"method":"roots/list"})");
    pipe.say(R"({"jsonrpc":"2.0","id":4711,"result":{}})");
    pipe.result(message, R"({"content":[]})");
  }));
  const auto up = s.open();
  REQUIRE(up);
  const auto client = std::make_shared<Recorder>();
  CHECK(s.start(*up, "tools/call", R"({"name":"a"})", 20s, client).get());
  CHECK(client->all().empty());
  for (const std::string& one : s.pipe->received()) CHECK_FALSE(find(one, "method").empty());  // no answers
  (*up)->close();
}

TEST_CASE("the trace that a request is part of goes into its _meta") {
  Stand s(modern([](Pipe& pipe, const std::string& message, const std::string& method) {
    if (method == "tools/call") pipe.result(message, R"({"content":[]})");
  }));
  const auto up = s.open();
  REQUIRE(up);
  const std::string parent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
  struct Row {
    HttpHeaders headers;
    std::string given;
    std::string traceparent, tracestate, baggage;
  };
  const std::string same = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const std::string other = "00-ffffffffffffffffffffffffffffffff-b7ad6b7169203331-01";
  const auto says = [](const std::string& trace) {
    return R"({"tracestate":"s=1","traceparent":)" + quote(trace) + "}";
  };
  const Row rows[] = {
      {{}, says(same), quote(same), "\"s=1\"", ""},
      {{{"traceparent", parent}}, "{}", quote(parent), "", ""},
      {{{"traceparent", parent}, {"tracestate", "a=1"}, {"baggage", "k=v"}},
       "{}",
       quote(parent),
       "\"a=1\"",
       "\"k=v\""},
      // The client's own part of that trace lies before the gateway's.
      {{{"traceparent", parent}}, says(same), quote(parent), "", ""},
      {{{"traceparent", parent}, {"baggage", "k=v"}}, says(other), quote(other), "\"s=1\"", ""},
      {{{"traceparent", parent}}, says("nonsense"), quote(parent), "", ""},
      {{{"baggage", "k=v"}}, says(same), quote(same), "\"s=1\"", "\"k=v\""},
  };
  for (const Row& row : rows) {
    const auto answer = on_loop<Answer>(*s.runtime, [&] {
      UpstreamCall call;
      call.method = "tools/call";
      call.params = R"({"name":"a","_meta":)" + row.given + "}";
      call.headers = row.headers;
      return (*up)->request(std::move(call));
    });
    REQUIRE(answer);
    const std::string sent = s.pipe->received("tools/call").back();
    const auto about = find(find(sent, "params"), "_meta");
    CHECK(find(about, "traceparent") == row.traceparent);
    CHECK(find(about, "tracestate") == row.tracestate);
    CHECK(find(about, "baggage") == row.baggage);
    CHECK(find(about, "io.modelcontextprotocol/protocolVersion") == "\"2026-07-28\"");
  }
  (*up)->close();
}
