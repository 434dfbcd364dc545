// Tasks of revision 2025-11-25: what both sides declare passes, and a task is its user's alone.
#include "../support/scripted_mcp.hpp"
#include "effects_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using namespace std::chrono_literals;
using detail::raw::find;

namespace {

std::string task(const std::string& id, const std::string& status = "working") {
  return R"({"taskId":")" + id + R"(","status":")" + status +
         R"(","createdAt":"2026-01-01T00:00:00Z","lastUpdatedAt":"2026-01-01T00:00:00Z","ttl":60000,"unknown":1.0})";
}

/// A server of tasks that cannot tell users apart: it numbers its tasks, and lists all of them.
struct TaskServer {
  std::atomic<int> made{0};
  std::atomic<bool> asks{false};
  std::mutex mutex;
  Strings to_say;  ///< on the standing stream
  std::atomic<bool> stop{false};

  ScriptedMcp http{[this](McpExchange& e) {
    const std::string id = e.text_param("taskId");
    const auto related = [](const std::string& task_id) {
      return R"("_meta":{"io.modelcontextprotocol/related-task":{"taskId":")" + task_id + R"("},"x":1})";
    };
    if (e.http_method == "GET") {
      e.stream();
      while (!stop) {
        Strings all;
        {
          const std::lock_guard lock(mutex);
          all.swap(to_say);
        }
        for (const std::string& one : all)
          if (!e.event(one)) return true;
        std::this_thread::sleep_for(1ms);
      }
      e.cut();
      return true;
    }
    if (e.method == "tools/call" && !e.param("task").empty()) {
      e.result(R"({"task":)" + task("t" + std::to_string(++made)) + R"(,"_meta":{"y":1}})");
    } else if (e.method == "tasks/get") {
      e.result(task(id));
    } else if (e.method == "tasks/cancel") {
      if (id == "t1")
        e.error(-32602, "Cannot cancel task");
      else
        e.result(task(id, "cancelled"));
    } else if (e.method == "tasks/result") {
      const std::string result =
          R"({"content":[{"type":"resource_link","uri":"file:///r","name":"r"}],)" + related(id) + "}";
      if (!asks) return e.result(result), true;
      e.stream();
      e.event(R"({"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"?",)" +
              related(id) + "}}");
      e.stream_result(result);
      e.end_stream();
    } else if (e.method == "tasks/list") {
      std::string all;
      for (int i = 1; i <= made; ++i) all += (all.empty() ? "" : ",") + task("t" + std::to_string(i));
      e.result(R"({"tasks":[)" + all + "]}");
    } else {
      return false;
    }
    return true;
  }};

  TaskServer() {
    http.capabilities = R"({"tools":{},"tasks":{"list":{},"cancel":{},"requests":{"tools":{"call":{}}}}})";
    http.tools =
        R"([{"name":"long","inputSchema":{"type":"object"},"execution":{"taskSupport":"optional","z":1}}])";
  }
  ~TaskServer() { stop = true; }
  void say(const std::string& message) {
    const std::lock_guard lock(mutex);
    to_say.push_back(message);
  }
};

struct World {
  World() : gw(network()) {}
  static InProcessOptions network() {
    InProcessOptions out = options();
    out.gateway.upstream.allow_private = true;
    return out;
  }
  void add(const std::string& name, const std::string& url) {
    Target target;
    target.name = name;
    target.transport_type = TransportType::streamable_http;
    target.url = url;
    REQUIRE(gw.gateway().repository()->create_target(std::move(target)));
  }
  InProcessGateway gw;
};

std::string start(McpClient& client, const std::string& tool, const std::string& more = {}) {
  const McpReply reply = client.request(
      "tools/call", R"({"name":")" + tool + R"(","arguments":{},"task":{"ttl":60000})" + more + "}");
  REQUIRE(reply.ok());
  const std::string made(find(reply.result(), "task"));
  CHECK(find(made, "unknown") == "1.0");
  return detail::raw::string_value(find(made, "taskId")).value_or("");
}

std::string with_id(const std::string& id) { return R"({"taskId":)" + detail::raw::quote(id) + "}"; }

Strings ids(const McpReply& reply) {
  Strings out;
  const std::string result = reply.result();
  for (const std::string_view one : detail::raw::elements(find(result, "tasks")))
    out.push_back(detail::raw::string_value(find(one, "taskId")).value_or(""));
  return out;
}

}  // namespace

TEST_CASE("tasks pass where both sides declare them: made, asked for, listed, cancelled") {
  TaskServer one, two;
  World w;
  w.add("one", one.http.url());
  w.add("two", two.http.url());
  w.gw.allow("alice", "");
  McpClient& alice = w.gw.as("alice");
  const McpReply opened = alice.initialize("2025-11-25");
  CHECK(find(find(opened.result(), "capabilities"), "tasks") ==
        R"({"list":{},"cancel":{},"requests":{"tools":{"call":{}}}})");
  CHECK(alice.request("tools/list").result().find(R"("execution":{"taskSupport":"optional","z":1})") !=
        std::string::npos);

  // Both servers call their first task alike: towards the client they differ.
  const std::string first = start(alice, "one_long"), second = start(alice, "two_long");
  CHECK(first.starts_with("mcpgw+one:"));
  CHECK(second.starts_with("mcpgw+two:"));
  CHECK(one.http.received("tools/call")[0].param("task") == R"({"ttl":60000})");

  const McpReply got = alice.request("tasks/get", with_id(first));
  CHECK(detail::raw::string_value(find(got.result(), "taskId")) == first);
  CHECK(find(got.result(), "unknown") == "1.0");
  CHECK(one.http.received("tasks/get")[0].text_param("taskId") == "t1");
  CHECK(two.http.received("tasks/get").empty());

  const McpReply result = alice.request("tasks/result", with_id(second));
  CHECK(result.result() == R"({"content":[{"type":"resource_link","uri":"mcpgw+two:file:///r","name":"r"}],)"
                           R"("_meta":{"io.modelcontextprotocol/related-task":{"taskId":)" +
                               detail::raw::quote(second) + R"(},"x":1}})");

  CHECK(ids(alice.request("tasks/list")) == Strings{first, second});
  CHECK(alice.request("tasks/list", R"({"cursor":"x"})").error_code() == -32602);
  // An error of the server passes.
  CHECK(alice.request("tasks/cancel", with_id(first)).error_message() == "Cannot cancel task");
  const std::string third = start(alice, "one_long");
  const McpReply cancelled = alice.request("tasks/cancel", with_id(third));
  CHECK(detail::raw::string_value(find(cancelled.result(), "taskId")) == third);
  CHECK(find(cancelled.result(), "status") == R"("cancelled")");

  // Each is in the audit log, as the tool that the task runs.
  int rows = 0;
  for (const AuditRecord& row : w.gw.audit_rows())
    if (row.method.starts_with("tasks/") && row.method != "tasks/list" && row.tool == "long") ++rows;
  CHECK(rows == 4);
}

TEST_CASE("a task is its user's alone: another's, an altered and a plain id are unknown") {
  TaskServer server;
  World w;
  w.add("git", server.http.url());
  for (const char* user : {"alice", "bob"}) {
    w.gw.allow(user, "git");
    REQUIRE(w.gw.as(user).initialize("2025-11-25").ok());
  }
  McpClient &alice = w.gw.as("alice"), &bob = w.gw.as("bob");
  const std::string hers = start(alice, "long"), his = start(bob, "long");
  CHECK(ids(alice.request("tasks/list")) == Strings{hers});
  CHECK(ids(bob.request("tasks/list")) == Strings{his});
  std::string altered = hers;
  altered[altered.size() / 2] = altered[altered.size() / 2] == 'A' ? 'B' : 'A';
  for (const std::string& id : {hers, altered, std::string("t1"), std::string(), std::string("mcpgw+git:t1"),
                                std::string("mcpgw+git:"), std::string(10000, 'x')})
    for (const char* method : {"tasks/get", "tasks/result", "tasks/cancel"}) {
      const McpReply reply = bob.request(method, with_id(id));
      CHECK(reply.error_code() == -32602);
      CHECK(reply.error_message() == "Task not found");
    }
  CHECK(bob.request("tasks/get", "{}").error_code() == -32602);
  CHECK(server.http.received("tasks/get").empty());
  CHECK(server.http.received("tasks/result").empty());
  CHECK(server.http.received("tasks/cancel").empty());

  // R11: it is judged as its tool: who may no longer use that has lost the task.
  CHECK(alice.request("tasks/get", with_id(hers)).ok());
  Policy deny;
  deny.name = "no long ones";
  deny.effect = Effect::deny;
  deny.priority = 10;
  deny.resource_pattern = "^long$";
  deny.subjects.push_back({});
  REQUIRE(w.gw.gateway().repository()->create_policy(deny));
  CHECK(alice.request("tasks/get", with_id(hers)).error_message() == "Task not found");
  CHECK(ids(alice.request("tasks/list")).empty());
}

TEST_CASE("messages about a task reach the session that made it, under the ids that it knows") {
  TaskServer server;
  World w;
  w.add("git", server.http.url());
  for (const char* user : {"alice", "bob"}) {
    w.gw.allow(user, "git");
    REQUIRE(w.gw.as(user).initialize("2025-11-25", R"({"elicitation":{}})").ok());
  }
  McpClient &alice = w.gw.as("alice"), &bob = w.gw.as("bob");
  std::string hers, of_alice, of_bob;
  {
    OpenStream first(w.gw, alice), second(w.gw, bob);
    hers = start(alice, "long");
    REQUIRE(start(bob, "long") != hers);
    // Two standing streams are open, one a user; what is said on either is the task's user's.
    server.say(R"({"jsonrpc":"2.0","method":"notifications/tasks/status","params":)" + task("t1") + "}");
    server.say(R"({"jsonrpc":"2.0","method":"notifications/tasks/status","params":)" + task("t77") + "}");
    server.asks = true;
    const McpReply result = alice.request("tasks/result", with_id(hers));
    REQUIRE(result.notifications.size() == 1);
    CHECK(find(find(find(find(result.notifications[0], "params"), "_meta"),
                    "io.modelcontextprotocol/related-task"),
               "taskId") == detail::raw::quote(hers));
    for (McpClient* client : {&alice, &bob}) {
      HttpRequest request;
      request.method = "DELETE";
      request.target = "/mcp";
      request.headers = {{"Authorization", "Bearer " + client->token()},
                         {"Mcp-Session-Id", client->session_id()}};
      REQUIRE(becomes([&] {
        const std::lock_guard lock(server.mutex);
        return server.to_say.empty();
      }));
      std::this_thread::sleep_for(200ms);
      CHECK(w.gw.send(std::move(request)).status == 204);
    }
    REQUIRE(first.ends());
    REQUIRE(second.ends());
    of_alice = first.events();
    of_bob = second.events();
  }
  CHECK(of_alice.find("notifications/tasks/status") != std::string::npos);
  CHECK(of_alice.find(detail::raw::quote(hers)) != std::string::npos);
  CHECK(of_alice.find("t77") == std::string::npos);
  CHECK(of_bob.find("notifications/tasks/status") == std::string::npos);
}

TEST_CASE("where one side knows no tasks, calls are plain ones") {
  TaskServer knows;
  ScriptedMcp plain;
  plain.tools = R"([{"name":"echo","execution":{"taskSupport":"required","z":1}}])";
  World w;
  w.add("knows", knows.http.url());
  w.add("plain", plain.url());
  w.gw.allow("alice", "");
  McpClient& alice = w.gw.as("alice");
  REQUIRE(alice.initialize("2025-11-25").ok());
  // The server ignores what it has not declared, and its tool does not say otherwise.
  CHECK(alice.request("tools/call", R"({"name":"plain_echo","task":{}})").text() == "echo");
  CHECK(plain.received("tools/call")[0].param("task").empty());
  CHECK(alice.request("tools/list").result().find(R"("execution":{"z":1})") != std::string::npos);
  CHECK(alice.request("tools/call", R"({"name":"knows_long","task":7})").error_code() == -32602);

  // An older client is not told of them, and its calls carry none.
  const McpReply opened = alice.initialize("2025-06-18");
  CHECK(find(find(opened.result(), "capabilities"), "tasks").empty());
  CHECK(alice.request("tasks/list").error_code() == -32601);
  CHECK(alice.request("tools/call", R"({"name":"knows_long","task":{}})").text() == "long");
  CHECK(knows.made == 0);
}
