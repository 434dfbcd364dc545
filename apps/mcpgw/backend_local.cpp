// A gateway of this process over the configured storage. What it writes, a gateway that runs on the same
// storage takes up within moments; every write leaves its audit row.
#include <pwd.h>
#include <unistd.h>

#include "cli.hpp"
#include "mcpgw/gateway.hpp"

namespace mcpgw::app {

namespace {

/// The id of nobody's account: the local administrator has none.
constexpr const char* kNobody = "00000000-0000-0000-0000-000000000000";
/// Longer than the gateway's own limit of the slowest route.
constexpr std::chrono::milliseconds kDeadline{60000};

std::string local_name() {
  const auto* entry = ::getpwuid(::geteuid());
  return "local:" + (entry != nullptr ? std::string(entry->pw_name) : std::to_string(::geteuid()));
}

std::string random_text() {
  const auto random = make_system_random();
  return make_uuid(*random) + make_uuid(*random);
}

/// Vouches for whoever may read the keys of this storage: that is an administrator already.
class LocalAdministrator final : public TokenVerifier {
 public:
  std::optional<Result<Principal>> verify(std::string_view token) override {
    if (token.substr(0, secret_.size()) != secret_) return std::nullopt;
    Principal out;
    // For another user's sake: that user's id, but the name says who did it.
    const auto user_id = token.substr(secret_.size());
    out.user_id = user_id.empty() ? kNobody : std::string(user_id);
    out.email = name_;
    out.role = "admin";
    out.scopes = {"mcp", "api"};
    return out;
  }
  std::string token(const std::string& user_id) const { return secret_ + user_id; }

 private:
  const std::string secret_ = random_text();
  const std::string name_ = local_name();
};

class LocalBackend final : public Backend {
 public:
  LocalBackend(std::shared_ptr<Gateway> gateway, std::shared_ptr<LocalAdministrator> administrator)
      : gateway_(std::move(gateway)), administrator_(std::move(administrator)) {}
  ~LocalBackend() override { gateway_->close(std::chrono::milliseconds(0)); }

  Result<HttpResponse> send(HttpRequest request) override {
    request.remote_address = "local";
    return gateway_->handle(std::move(request), kDeadline);
  }
  Result<std::string> authorization(const std::string& user_id) override {
    return "Bearer " + administrator_->token(user_id);
  }
  bool is_local() const override { return true; }

 private:
  const std::shared_ptr<Gateway> gateway_;
  const std::shared_ptr<LocalAdministrator> administrator_;
};

}  // namespace

Result<std::unique_ptr<Backend>> make_local_backend(Opened opened) {
  auto administrator = std::make_shared<LocalAdministrator>();
  auto options = std::move(opened.config.gateway);
  options.storage = opened.database.storage;
  options.audit_sink = opened.database.audit;
  options.token_verifiers.push_back(administrator);
  RuntimeOptions runtime;
  runtime.loops = 1;
  runtime.workers = 2;
  runtime.hash_workers = 1;
  options.runtime = Runtime::create(runtime);
  auto gateway = Gateway::create(std::move(options));
  if (!gateway) return gateway.error();
  return std::unique_ptr<Backend>(
      std::make_unique<LocalBackend>(std::move(*gateway), std::move(administrator)));
}

}  // namespace mcpgw::app
