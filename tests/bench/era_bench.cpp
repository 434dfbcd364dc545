// What translation between the eras costs: tools/call by clients of 2025-11-25 and of 2026-07-28 on servers
// of both, in one process and without sockets, so that nothing hides it. Prints CPU time a call (everything:
// client, gateway, server), and what the calls across the eras cost compared with those within them.
//
//   era_bench [CALLS [ROUNDS]]
#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <thread>

#include "inprocess/modern_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

/// A server in this process that answers at once, on a thread of its own.
class Server final : public MessageChannel {
 public:
  explicit Server(bool modern) : modern_(modern), thread_([this] { work(); }) {}
  ~Server() override {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }
  void start(Receiver receiver) override {
    const std::lock_guard lock(mutex_);
    receiver_ = std::move(receiver);
  }
  Status send(std::string message) override {
    {
      const std::lock_guard lock(mutex_);
      todo_.push_back(std::move(message));
    }
    wake_.notify_all();
    return {};
  }
  void close() override {
    const std::lock_guard lock(mutex_);
    todo_.clear();
  }

 private:
  std::string result_of(const std::string& method) const {
    const std::string kind = modern_ ? R"("resultType":"complete",)" : "";
    const std::string cache = modern_ ? R"("ttlMs":0,"cacheScope":"private",)" : "";
    if (method == "initialize")
      return R"({"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}})";
    if (method == "server/discover")
      return "{" + kind + cache + R"("supportedVersions":["2026-07-28"],"capabilities":{"tools":{}}})";
    if (method == "tools/list")
      return "{" + kind + cache + R"("tools":[{"name":"echo","inputSchema":{"type":"object"}}]})";
    return "{" + kind + R"("content":[{"type":"text","text":"hello"}]})";
  }
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
      const std::string id(find(message, "id"));
      if (id.empty()) continue;
      receiver_.on_message(detail::make_result(
          id, result_of(detail::raw::string_value(find(message, "method")).value_or(""))));
    }
  }

  const bool modern_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::string> todo_;
  Receiver receiver_;
  bool over_ = false;
  std::thread thread_;
};

double cpu_us() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto us = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec);
  };
  return us(usage.ru_utime) + us(usage.ru_stime);
}

struct Side {
  std::unique_ptr<InProcessGateway> gateway;
  McpClient* client = nullptr;
};

Side side(bool modern_server) {
  InProcessOptions options;
  options.gateway.connect_upstream =
      [modern_server](const UpstreamParameters&) -> Result<std::shared_ptr<MessageChannel>> {
    return std::shared_ptr<MessageChannel>(std::make_shared<Server>(modern_server));
  };
  Side out;
  out.gateway = std::make_unique<InProcessGateway>(std::move(options));
  Target target;
  target.name = "server";
  target.transport_type = TransportType::stdio;
  target.command = "in-process";
  if (modern_server) target.protocol_era = EraSetting::modern;
  if (!out.gateway->gateway().repository()->create_target(std::move(target))) std::abort();
  out.gateway->allow("alice", "server");
  out.client = &out.gateway->as("alice");
  return out;
}

bool call(McpClient& client, bool modern_client) {
  return (modern_client ? modern_call(client, "echo", R"({"text":"hello"})")
                        : client.call_tool("echo", R"({"text":"hello"})"))
      .ok();
}

}  // namespace

int main(int argc, char** argv) {
  const int calls = std::clamp(argc > 1 ? std::atoi(argv[1]) : 3000, 1, 1000000);
  const int rounds = std::clamp(argc > 2 ? std::atoi(argv[2]) : 5, 1, 100);
  Side sides[2] = {side(false), side(true)};
  double best[2][2] = {};  // [client is modern][server is modern]: CPU microseconds a call
  for (int round = -1; round < rounds; ++round) {
    for (const int client : {0, 1}) {
      for (const int server : {0, 1}) {
        const double began = cpu_us();
        for (int i = 0; i < calls; ++i) {
          if (call(*sides[server].client, client == 1)) continue;
          std::fprintf(stderr, "a call failed\n");
          return 1;
        }
        const double each = (cpu_us() - began) / calls;
        // The first round only warms everything up.
        if (round == 0 || (round > 0 && each < best[client][server])) best[client][server] = each;
      }
    }
  }
  const char* names[] = {"2025-11-25", "2026-07-28"};
  std::printf("| client | server | CPU a call, us |\n|---|---|---|\n");
  for (const int client : {0, 1})
    for (const int server : {0, 1})
      std::printf("| %s | %s | %.1f |\n", names[client], names[server], best[client][server]);
  // Each client and each server is in both sums once: what differs is the translation.
  std::printf("\nacross the eras / within them: %.3f\n",
              (best[0][1] + best[1][0]) / (best[0][0] + best[1][1]));
}
