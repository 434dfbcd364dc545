// A REST API over memory storage with an admin, a plain user and a narrow token, for the tests of it.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "json/json.hpp"
#include "mcpgw/admin_api.hpp"
#include "mcpgw/testing.hpp"

namespace mcpgw::admin_test {

using detail::Json;
using testing::FailingStorage;
using testing::ManualClock;

inline const std::string kNobody = "11111111-1111-4111-8111-111111111111";

/// The live side of a gateway, as far as the API can tell.
class FakeLive final : public LiveState {
 public:
  Result<int> recycle(const std::string& user_id) override {
    if (away) return Error(ErrorCode::unavailable, "storage_unavailable", "The storage does not answer");
    const std::lock_guard lock(mutex);
    recycled.push_back(user_id);
    return 3;
  }
  Result<int> restart_instances(const std::string&) override {
    if (broken) return Error(ErrorCode::internal, "k8s", "connect 10.1.2.3:6443 refused");
    return 2;
  }
  TargetStatus target_status(const std::string&) override { return status; }
  Result<TargetTest> test_target(const Principal& principal, const std::string&) override {
    if (broken) throw std::runtime_error("canary inside an exception");
    const std::lock_guard lock(mutex);
    tested_as = principal.user_id;
    TargetTest out;
    out.ok = true;
    out.steps.push_back({"initialize", true, 1, "fine"});
    return out;
  }
  std::string snapshot(const Principal& principal) override {
    return principal.is_admin() ? R"({"all":true})" : R"({"all":false})";
  }
  Result<SocketTicket> socket_ticket(const Principal& principal) override {
    if (away) return Error(ErrorCode::unavailable, "storage_unavailable", "The storage does not answer");
    if (broken) return Error(ErrorCode::resource_exhausted, "rate_limited", "Too many tickets");
    return SocketTicket{"ticket-of-" + principal.user_id, Time(std::chrono::hours(24 * 365 * 60))};
  }
  bool can_audit() override { return !audit_full; }
  bool audit(AuditRecord record) override {
    const std::lock_guard lock(mutex);
    rows.push_back(std::move(record));
    return !audit_broken;
  }
  std::mutex mutex;
  std::vector<AuditRecord> rows;
  std::vector<std::string> recycled;
  std::string tested_as;
  TargetStatus status;
  bool broken = false;
  bool away = false;  ///< of its storage
  bool audit_full = false;
  bool audit_broken = false;
};

struct Settings {
  RepositoryOptions repository;
  AuthenticatorOptions auth;
  AdminApiOptions api;
  bool users = true;  ///< the admin and the plain user exist
};

struct Api {
  FakeLive live;
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  std::shared_ptr<FailingStorage> storage = std::make_shared<FailingStorage>(make_memory_storage());
  std::shared_ptr<AuditSink> sink = make_memory_audit_sink();
  std::shared_ptr<Repository> repository;
  std::shared_ptr<Authenticator> auth;
  std::unique_ptr<AdminApi> api;
  std::vector<std::string> causes;  ///< what on_internal_error was told
  std::string admin_id, user_id, admin, user, mcp_only;

  explicit Api(Settings settings = {}) {
    settings.repository.storage = storage;
    settings.repository.clock = clock;
    settings.repository.keys.current = "0123456789abcdefghijklmnopqrstuv";
    repository = *Repository::open(settings.repository);
    settings.auth.repository = repository;
    settings.auth.jwt_secret = "a secret of the test, longer than 32 bytes";
    auth = *Authenticator::create(settings.auth);
    AdminApiOptions& o = settings.api;
    o.repository = repository;
    o.authenticator = auth;
    o.policy_engine = PolicyEngine::create(repository);
    o.audit_sink = sink;
    o.live = &live;
    o.on_internal_error = [this](const std::string& id, const std::string&, const std::string& cause) {
      causes.push_back(id + " " + cause);
    };
    api = std::make_unique<AdminApi>(o);
    if (!settings.users) return;
    admin_id = add_user("root@example.test", "admin");
    user_id = add_user("bob@example.test", "user");
    admin = token(admin_id, {"mcp", "api"});
    user = token(user_id, {"mcp", "api"});
    mcp_only = token(admin_id, {"mcp"});
  }
  std::string add_user(const std::string& email, const std::string& role, const std::string& password = {}) {
    User out;
    out.email = email;
    out.role = role;
    if (!password.empty()) out.password_hash = *auth->hash_password(password);
    return (*repository->create_user(out)).id;
  }
  std::string token(const std::string& id, std::vector<std::string> scopes) {
    return (*auth->mint(id, "t", TokenKind::api, std::move(scopes), std::nullopt)).token;
  }
  HttpResponse call(const std::string& who, const std::string& method, const std::string& target,
                    const std::string& body = {}, HttpHeaders headers = {}) {
    HttpRequest request;
    request.method = method;
    request.target = target;
    request.body = body;
    request.headers = std::move(headers);
    request.remote_address = "10.0.0.1";
    if (!who.empty()) request.headers.emplace_back("Authorization", "Bearer " + who);
    return api->handle(request, "req-1");
  }
  static Json json(const HttpResponse& response) {
    auto out = detail::parse_json(response.body, 64);
    REQUIRE_MESSAGE(out, response.body);
    return *out;
  }
  static std::string code(const HttpResponse& response) {
    return response.body.empty() ? std::string() : json(response).value("code", "");
  }
  static std::string field(const HttpResponse& response) { return json(response).value("field", ""); }
  std::string make_target(const std::string& name, const std::string& more = "") {
    return json(call(admin, "POST", "/api/targets",
                     R"({"name":")" + name + R"(","url":"https://x.example/mcp")" + more + "}"))["id"];
  }
  std::string make_stdio(const std::string& name, const std::string& more = "") {
    return make_target(name, R"(,"transport_type":"stdio","command":"npx")" + more);
  }
  void open_to_all() {
    REQUIRE(call(admin, "POST", "/api/policies",
                 R"({"name":"all","effect":"allow","subjects":[{"subject_type":"everyone"}]})")
                .status == 201);
  }
  /// The newest audit row.
  const AuditRecord& row() const {
    REQUIRE_FALSE(live.rows.empty());
    return live.rows.back();
  }
};

/// A path of the template with values that exist for nobody, or those given by name.
inline std::string fill(std::string path, const std::map<std::string, std::string>& values = {}) {
  for (std::size_t at; (at = path.find('{')) != std::string::npos;) {
    const std::size_t end = path.find('}', at);
    const std::string name = path.substr(at + 1, end - at - 1);
    const auto given = values.find(name);
    const bool word = name == "key" || name == "role" || name == "group";
    path.replace(at, end - at + 1, given != values.end() ? given->second : word ? "x" : kNobody);
  }
  return path;
}

/// Runs `work` in `count` threads at once.
template <class Work>
void in_parallel(int count, Work work) {
  std::atomic<bool> go{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i)
    threads.emplace_back([&, i] {
      while (!go) std::this_thread::yield();
      work(i);
    });
  go = true;
  for (std::thread& thread : threads) thread.join();
}

}  // namespace mcpgw::admin_test
