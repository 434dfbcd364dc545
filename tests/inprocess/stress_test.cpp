// Two hundred sessions at once over several targets, answers in every form, progress, requests of servers and
// streams that are cut: everything that reaches a client carries a nonce that is its own. A few seconds;
// MCPGW_STRESS_SECONDS makes it longer.
#include <cstdlib>
#include <random>

#include "json/raw.hpp"
#include "protocol/message.hpp"
#include "runtime/loop.hpp"
#include "stream_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using namespace mcpgw::detail;

namespace {

constexpr int kUsers = 20;
constexpr int kSessions = 200;
constexpr int kDrivers = 24;

/// An MCP server whose tools give back the nonce they were called with: `echo` at once, `work` after
/// progress, `ask` with what the client answers to a request of the server's.
class NonceServer {
 public:
  ~NonceServer() { pool_->stop_and_join(); }
  Result<std::shared_ptr<MessageChannel>> connect() {
    return std::static_pointer_cast<MessageChannel>(std::make_shared<Channel>(pool_));
  }

 private:
  class Channel final : public MessageChannel, public std::enable_shared_from_this<Channel> {
   public:
    explicit Channel(std::shared_ptr<WorkerPool> pool) : pool_(std::move(pool)) {}
    void start(Receiver receiver) override {
      const std::lock_guard lock(delivery_);
      receiver_ = std::move(receiver);
    }
    Status send(std::string message) override {
      pool_->post([self = shared_from_this(), text = std::move(message)] { self->handle(text); });
      return {};
    }
    void close() override {
      const std::lock_guard lock(delivery_);
      closed_ = true;
    }

   private:
    void deliver(std::string message) {
      const std::lock_guard lock(delivery_);
      if (!closed_ && receiver_.on_message) receiver_.on_message(std::move(message));
    }
    void handle(const std::string& text) {
      const auto read = read_envelope(text);
      const auto* message = std::get_if<Envelope>(&read);
      if (message == nullptr) return;
      const std::string id(message->id);
      if (message->kind == Envelope::Kind::response) {
        std::string call;
        {
          const std::lock_guard lock(mutex_);
          const auto it = asked_.find(id);
          if (it == asked_.end()) return;
          call = it->second;
          asked_.erase(it);
        }
        return deliver(make_result(call, FakeUpstream::text("answered " + std::string(message->result) +
                                                            std::string(message->error))));
      }
      if (message->kind != Envelope::Kind::request) return;
      if (message->method == "initialize")
        return deliver(make_result(
            id,
            R"({"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"n","version":"1"}})"));
      if (message->method == "tools/list")
        return deliver(make_result(
            id,
            R"({"tools":[{"name":"echo","inputSchema":{"type":"object"}},{"name":"work","inputSchema":{"type":"object"}},{"name":"ask","inputSchema":{"type":"object"}}]})"));
      if (message->method != "tools/call") return deliver(make_error(id, rpc::kMethodNotFound, "no"));
      const auto tool = raw::string_value(raw::find(message->params, "name")).value_or("");
      const std::string arguments(raw::find(message->params, "arguments"));
      if (tool == "ask") {
        std::string ours;
        {
          const std::lock_guard lock(mutex_);
          ours = std::to_string(next_++);  // may equal an id of the gateway's
          asked_[ours] = id;
        }
        return deliver(make_request(ours, "sampling/createMessage",
                                    R"({"messages":[],"maxTokens":1,"metadata":)" + arguments + "}"));
      }
      const std::string token(raw::find(raw::find(message->params, "_meta"), "progressToken"));
      for (int i = 1; i <= 3 && tool == "work" && !token.empty(); ++i)
        deliver(make_notification("notifications/progress",
                                  R"({"progressToken":)" + token + R"(,"progress":)" + std::to_string(i) +
                                      R"(,"message":)" + raw::quote(arguments) + "}"));
      deliver(make_result(id, FakeUpstream::text("got " + arguments)));
    }

    const std::shared_ptr<WorkerPool> pool_;
    std::recursive_mutex delivery_;
    Receiver receiver_;
    bool closed_ = false;
    std::mutex mutex_;
    std::map<std::string, std::string> asked_;
    std::uint64_t next_ = 1;
  };
  const std::shared_ptr<WorkerPool> pool_ = std::make_shared<WorkerPool>(4, 100000);
};

struct Client {
  McpClient client;
  std::string name;
  int next = 1;
  std::unique_ptr<LiveRequest> stream;
};

class Traffic {
 public:
  Traffic(InProcessGateway& gw, unsigned seed) : gw_(gw), random_(seed) {}

  /// One call; what is wrong with it, or nothing.
  std::string call(Client& who) {
    const std::string nonce = who.name + "-" + std::to_string(who.next);
    const std::string id =
        who.next % 2 == 0 ? std::to_string(who.next) : raw::quote(std::to_string(who.next));
    ++who.next;
    const int kind = static_cast<int>(random_() % 6);
    static const char* const kTargets[] = {"shared", "users", "own"};
    // A server's request can be placed on a connection of its own only.
    const std::string target = kind >= 4 ? "own" : kTargets[random_() % 3];
    const std::string tool = kind >= 4 ? "ask" : kind >= 2 ? "work" : "echo";
    const std::string body =
        rpc_request(id, "tools/call",
                    R"({"name":")" + target + "_" + tool + R"(","arguments":{"nonce":")" + nonce +
                        R"("},"_meta":{"progressToken":)" + id + "}}");
    const char* const accepts[] = {"application/json, text/event-stream", "application/json",
                                   "text/event-stream"};
    const std::string accept = kind >= 4 ? accepts[0] : accepts[random_() % 3];
    LiveRequest request(gw_, post_request(who.client, body, {{"Accept", accept}}));
    std::unique_ptr<LiveRequest> resumed;
    if (tool == "ask") {
      std::string asked;
      if (!request.sees([&](const auto& event) {
            if (event.data.find("sampling/createMessage") == std::string::npos) return false;
            asked = raw::find(event.data, "id");
            return true;
          }))
        return nonce + ": was not asked: " + request.text();
      LiveRequest* now = &request;
      if (kind == 5) {
        // Cut off in the middle, and back for the rest.
        const std::string last = request.last_id();
        request.cut();
        resumed = std::make_unique<LiveRequest>(gw_, get_request(who.client, {{"Last-Event-ID", last}}));
        now = resumed.get();
      }
      const HttpResponse taken = gw_.send(post_request(
          who.client, R"({"jsonrpc":"2.0","id":)" + asked + R"(,"result":{"nonce":")" + nonce + R"("}})"));
      if (taken.status != 202) return nonce + ": the answer was not taken";
      if (!now->ends()) return nonce + ": no end";
    } else if (!request.ends()) {
      return nonce + ": no end";
    }
    int answers = 0, progress = 0;
    for (LiveRequest* one : {&request, resumed.get()}) {
      if (one == nullptr) continue;
      const bool stream = one->header("Content-Type") == "text/event-stream";
      Strings messages;
      if (stream)
        for (const auto& event : one->events()) messages.push_back(event.data);
      else
        messages.push_back(one->text());
      for (const std::string& message : messages) {
        if (message.empty()) continue;
        if (message.find(nonce + "\\\"") == std::string::npos &&
            message.find(nonce + "\"") == std::string::npos)
          return nonce + ": a message that is not its own: " + message;
        progress += message.find("notifications/progress") != std::string::npos;
        if (raw::find(message, "method").empty()) {
          ++answers;
          if (raw::find(message, "id") != id) return nonce + ": another id: " + message;
          if (raw::find(message, "result").empty()) return nonce + ": an error: " + message;
        } else if (message.find("notifications/progress") != std::string::npos &&
                   raw::find(raw::find(message, "params"), "progressToken") != id) {
          return nonce + ": another token: " + message;
        }
      }
    }
    if (answers != 1) return nonce + ": " + std::to_string(answers) + " answers";
    if (tool == "work" && accept.find("event-stream") != std::string::npos && progress != 3)
      return nonce + ": " + std::to_string(progress) + " notifications of progress";
    return {};
  }

 private:
  InProcessGateway& gw_;
  std::minstd_rand random_;
};

}  // namespace

TEST_CASE("R3: two hundred sessions with mixed traffic, and nothing reaches another") {
  const char* longer = std::getenv("MCPGW_STRESS_SECONDS");
  const auto until = steady_clock::now() + std::chrono::seconds(longer != nullptr ? std::atoi(longer) : 0);
  NonceServer server;
  InProcessOptions opts = options();
  opts.gateway.limits.max_in_flight = 1000;
  opts.gateway.connect_upstream = [&server](const UpstreamParameters&) { return server.connect(); };
  InProcessGateway gw(std::move(opts));
  Target shared, own;
  shared.name = "shared";
  own.name = "own";
  shared.transport_type = own.transport_type = TransportType::stdio;
  shared.command = own.command = "in-process";
  own.statefulness = Statefulness::stateful;  // a connection for each session
  for (const Target& target : {shared, http_target("users"), own})
    REQUIRE(gw.gateway().repository()->create_target(target));
  std::vector<std::unique_ptr<Client>> clients;
  for (int s = 0; s < kSessions; ++s) {
    const std::string user = "user" + std::to_string(s % kUsers);
    if (s < kUsers) gw.allow(user, "");
    auto client = std::make_unique<Client>(Client{gw.as(user), "s" + std::to_string(s), 1, nullptr});
    REQUIRE(client->client.initialize("2025-11-25", R"({"sampling":{}})").ok());
    clients.push_back(std::move(client));
  }
  for (int s = 0; s < kSessions; s += 8) {
    clients[static_cast<std::size_t>(s)]->stream =
        std::make_unique<LiveRequest>(gw, get_request(clients[static_cast<std::size_t>(s)]->client));
    REQUIRE(clients[static_cast<std::size_t>(s)]->stream->status() == 200);
  }

  std::mutex mutex;
  Strings wrong;
  std::atomic<int> calls{0};
  std::vector<std::thread> drivers;
  for (int d = 0; d < kDrivers; ++d)
    drivers.emplace_back([&, d] {
      Traffic traffic(gw, static_cast<unsigned>(d) + 1);
      for (int round = 0; round < 4 || steady_clock::now() < until; ++round)
        for (std::size_t s = static_cast<std::size_t>(d); s < clients.size(); s += kDrivers) {
          const std::string fault = traffic.call(*clients[s]);
          ++calls;
          if (fault.empty()) continue;
          const std::lock_guard lock(mutex);
          wrong.push_back(fault);
          if (wrong.size() > 10) return;
        }
    });
  for (auto& driver : drivers) driver.join();
  for (const std::string& fault : wrong) FAIL_CHECK(fault);
  CHECK(calls >= kSessions * 4);
  // What belongs to calls is on no session's own stream.
  for (const auto& client : clients)
    if (client->stream) {
      CHECK(client->stream->count("nonce") == 0);
      CHECK(client->stream->count("sampling") == 0);
      CHECK_FALSE(client->stream->ended());
    }
}
