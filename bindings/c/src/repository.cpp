// Users, targets, policies and credentials, and the questions that can be asked of them.
#include "mcpgw/repository.hpp"

#include "gateway.hpp"
#include "mcpgw/admin_api.hpp"
#include "options.hpp"
#include "storage.hpp"
#include "storage/model_text.hpp"

namespace mcpgw::capi {

namespace {

/// The live side of a repository that no gateway serves.
class NoTraffic final : public LiveState {
 public:
  NoTraffic(std::shared_ptr<Repository> repository, std::shared_ptr<AuditSink> audit)
      : repository_(std::move(repository)), audit_(std::move(audit)) {}

  Result<int> recycle(const std::string& user_id) override {
    auto ended = repository_->delete_sessions_of(user_id);
    if (!ended) return ended.error();
    return static_cast<int>(ended->size());
  }
  Result<int> restart_instances(const std::string&) override { return 0; }
  TargetStatus target_status(const std::string&) override { return {}; }
  Result<TargetTest> test_target(const Principal&, const std::string&) override { return needs_gateway(); }
  std::string snapshot(const Principal&) override { return "{}"; }
  Result<SocketTicket> socket_ticket(const Principal&) override { return needs_gateway(); }
  bool audit(AuditRecord record) override { return audit_->append({std::move(record)}).has_value(); }

 private:
  static Error needs_gateway() {
    return {ErrorCode::unsupported, "unsupported", "This needs a gateway; here is only what it stores"};
  }
  const std::shared_ptr<Repository> repository_;
  const std::shared_ptr<AuditSink> audit_;
};

/// What a REST API without a gateway stands on.
struct Standalone {
  std::shared_ptr<AuditSink> audit;
  std::unique_ptr<NoTraffic> live;
  std::unique_ptr<AdminApi> api;
};

}  // namespace

}  // namespace mcpgw::capi

struct mcpgw_repository {
  std::shared_ptr<mcpgw::Repository> repository;
  std::shared_ptr<mcpgw::PolicyEngine> engine;
  std::shared_ptr<mcpgw::capi::HostAdministrator> administrator;
  std::shared_ptr<mcpgw::Gateway> gateway;  ///< null: alone
  mcpgw::capi::Standalone alone;
};

struct mcpgw_policy_engine {
  std::shared_ptr<mcpgw::Repository> repository;
  std::shared_ptr<mcpgw::PolicyEngine> engine;
};

struct mcpgw_token_resolver {
  std::shared_ptr<mcpgw::Repository> repository;
  mcpgw::TokenResolver resolver;
};

struct mcpgw_env_resolver {
  std::shared_ptr<mcpgw::Repository> repository;
  mcpgw::EnvResolver resolver;
};

namespace mcpgw::capi {

namespace {

struct Question {
  Json json;
  std::optional<Principal> principal;  ///< nullopt: a user who is not known
  bool disabled = false;
  std::shared_ptr<const Target> target;  ///< null: not known
};

Result<std::string> text(const Json& object, const char* name, bool required) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) {
    if (!required) return std::string();
    return invalid("invalid_question", std::string("The question needs ") + name, name);
  }
  if (!found->is_string()) return invalid("invalid_question", std::string(name) + " must be a text", name);
  return found->get<std::string>();
}

Result<Principal> read_principal(const Json& object) {
  if (!object.is_object()) return invalid("invalid_question", "principal must be an object", "principal");
  Principal out;
  auto user_id = text(object, "user_id", false), role = text(object, "role", false),
       email = text(object, "email", false);
  if (!user_id) return user_id.error();
  if (!role) return role.error();
  if (!email) return email.error();
  out.user_id = std::move(*user_id);
  out.email = std::move(*email);
  out.role = role->empty() ? "user" : std::move(*role);
  const auto groups = object.find("groups");
  if (groups == object.end()) return out;
  if (!groups->is_array()) return invalid("invalid_question", "groups must be a list of texts", "groups");
  for (const Json& group : *groups) {
    if (!group.is_string()) return invalid("invalid_question", "groups must be a list of texts", "groups");
    out.groups.push_back(group.get<std::string>());
  }
  return out;
}

Result<Question> read_question(const Repository& repository, std::string_view json) {
  auto read = detail::parse_json(json);
  if (!read || !read->is_object()) return invalid("invalid_question", "The question must be a JSON object");
  Question out;
  out.json = std::move(*read);
  if (const auto given = out.json.find("principal"); given != out.json.end()) {
    if (out.json.contains("user"))
      return invalid("invalid_question", "user and principal exclude each other", "user");
    auto principal = read_principal(*given);
    if (!principal) return principal.error();
    out.principal = std::move(*principal);
  } else {
    auto name = text(out.json, "user", true);
    if (!name) return name.error();
    auto user = repository.user(*name);
    if (!user) user = repository.user_by_email(*name);
    if (user) {
      out.disabled = !user->enabled;
      out.principal = Principal{user->id, user->email, user->role, user->groups, {}, {}, {}};
    }
  }
  auto target = text(out.json, "target", true);
  if (!target) return target.error();
  out.target = repository.target(*target);
  if (!out.target) out.target = repository.target_by_name(*target);
  return out;
}

/// For resolvers, which answer only for who and what is there.
Result<Question> read_known(const Repository& repository, std::string_view json) {
  auto question = read_question(repository, json);
  if (!question) return question;
  if (!question->principal || question->disabled)
    return Error(ErrorCode::not_found, "user_not_found", "There is no such user, or the account is disabled",
                 "user");
  if (!question->target)
    return Error(ErrorCode::not_found, "target_not_found", "There is no such target", "target");
  return question;
}

Status give(const Json& answer, char** out) {
  *out = copy_out(detail::dump_json(answer));
  if (*out == nullptr) throw std::bad_alloc();
  return {};
}

Json decision_json(const Decision& decision) {
  return {{"allowed", decision.allowed()},
          {"effect", detail::to_text(decision.effect)},
          {"reason", to_string(decision.reason)},
          {"policy_id", decision.policy_id},
          {"policy_name", decision.policy_name}};
}

Json denied(const char* reason) {
  return {{"allowed", false}, {"effect", "deny"}, {"reason", reason}, {"policy_id", ""}, {"policy_name", ""}};
}

Status evaluate(const mcpgw_policy_engine& engine, std::string_view json, char** out) {
  auto question = read_question(*engine.repository, json);
  if (!question) return question.error();
  auto type_name = text(question->json, "type", true), name = text(question->json, "name", true);
  if (!type_name) return type_name.error();
  if (!name) return name.error();
  const auto type = detail::parse_text<ResourceType>(*type_name);
  if (!type || *type == ResourceType::all)
    return invalid("invalid_question", "type must be tool, resource or prompt", "type");
  const auto explain = question->json.find("explain");
  if (explain != question->json.end() && !explain->is_boolean())
    return invalid("invalid_question", "explain must be true or false", "explain");
  if (!question->principal) return give(denied("unknown_user"), out);
  if (question->disabled) return give(denied("user_disabled"), out);
  const std::string target_id = question->target ? question->target->id : std::string();
  if (explain == question->json.end() || !explain->get<bool>())
    return give(decision_json(engine.engine->evaluate(*question->principal, target_id, *type, *name)), out);
  const Explanation explanation = engine.engine->explain(*question->principal, target_id, *type, *name);
  Json answer = decision_json(explanation.decision);
  answer["considered"] = Json::array();
  for (const Considered& considered : explanation.considered)
    answer["considered"].push_back({{"policy_id", considered.policy_id},
                                    {"policy_name", considered.policy_name},
                                    {"effect", detail::to_text(considered.effect)},
                                    {"priority", considered.priority},
                                    {"matched", considered.matched},
                                    {"why", considered.why}});
  return give(answer, out);
}

Status open(const app::Config& config, OpenedStorage storage, mcpgw_repository& out) {
  const GatewayOptions& given = config.gateway;
  RepositoryOptions options;
  options.storage = storage.storage;
  options.keys = given.encryption;
  const auto random = make_system_random();
  options.stdio_allowed_commands = given.stdio.allowed_commands;
  options.stdio_enabled = given.stdio.enabled;
  options.max_tokens_per_user = given.max_tokens_per_user;
  options.max_timeout_ms = given.upstream.max_timeout.count();
  auto repository = Repository::open(std::move(options));
  if (!repository) return repository.error();
  out.repository = *repository;
  out.engine = PolicyEngine::create(*repository);
  out.administrator = std::make_shared<HostAdministrator>();

  AuthenticatorOptions auth;
  auth.repository = *repository;
  auth.jwt_secret = given.jwt_secret;
  if (auth.jwt_secret.empty()) auth.jwt_secret = make_uuid(*random) + make_uuid(*random);
  auth.previous_jwt_secrets = given.previous_jwt_secrets;
  auth.issuer = given.jwt_issuer;
  auth.audience = given.jwt_audience;
  auth.login_ttl = given.login_ttl;
  auth.password_min = given.password_min;
  auth.registration_open = given.registration_open;
  auth.setup_token = given.setup_token;
  auth.verifiers.push_back(out.administrator);
  auto authenticator = Authenticator::create(std::move(auth));
  if (!authenticator) return authenticator.error();

  out.alone.audit = storage.audit ? storage.audit : make_memory_audit_sink();
  out.alone.live = std::make_unique<NoTraffic>(*repository, out.alone.audit);
  AdminApiOptions api;
  api.repository = *repository;
  api.authenticator = *authenticator;
  api.policy_engine = out.engine;
  api.audit_sink = out.alone.audit;
  api.live = out.alone.live.get();
  api.body_max = given.limits.api_body;
  api.list_max = given.limits.list_max;
  api.audit_bodies = given.audit.body != AuditBody::none;
  api.audit_body_max = given.audit.body_max;
  out.alone.api = std::make_unique<AdminApi>(std::move(api));
  return {};
}

/// Makes a handle of a repository's.
template <class Handle, class Make>
mcpgw_status make_handle(mcpgw_repository* repository, Handle** out, char** out_error, Make make) {
  if (out != nullptr) *out = nullptr;
  return guard(out_error, [&]() -> Status {
    if (repository == nullptr || out == nullptr)
      return invalid("invalid_argument", "repository and out must not be NULL");
    *out = make();
    return {};
  });
}

/// Puts a question to a handle.
template <class Handle, class Answer>
mcpgw_status ask(Handle* handle, char** out, char** out_error, Answer answer) {
  if (out != nullptr) *out = nullptr;
  return guard(out_error, [&]() -> Status {
    if (handle == nullptr || out == nullptr)
      return invalid("invalid_argument", "the handle and out must not be NULL");
    return answer();
  });
}

}  // namespace

}  // namespace mcpgw::capi

using namespace mcpgw;
using namespace mcpgw::capi;

mcpgw_status mcpgw_repository_open(const char* options, size_t size, mcpgw_storage* storage,
                                   mcpgw_repository** out, char** out_error) {
  if (out != nullptr) *out = nullptr;
  return guard(out_error, [&]() -> Status {
    if (out == nullptr) return invalid("invalid_argument", "out must not be NULL");
    app::Config config = default_options();
    if (auto done = apply_options(view(options, size), config); !done) return done;
    auto opened = open_storage(config, storage);
    if (!opened) return opened.error();
    auto handle = std::make_unique<mcpgw_repository>();
    if (auto done = open(config, std::move(*opened), *handle); !done) return done;
    *out = handle.release();
    return {};
  });
}

mcpgw_status mcpgw_gateway_repository(mcpgw_gateway* gateway, mcpgw_repository** out, char** out_error) {
  if (out != nullptr) *out = nullptr;
  return guard(out_error, [&]() -> Status {
    if (gateway == nullptr || out == nullptr)
      return invalid("invalid_argument", "gateway and out must not be NULL");
    auto handle = std::make_unique<mcpgw_repository>();
    handle->gateway = gateway->gateway;
    handle->administrator = gateway->administrator;
    handle->repository = gateway->gateway->repository();
    handle->engine = gateway->gateway->policy_engine();
    *out = handle.release();
    return {};
  });
}

mcpgw_status mcpgw_repository_admin(mcpgw_repository* repository, const char* user_id, size_t user_id_size,
                                    const char* method, size_t method_size, const char* target,
                                    size_t target_size, const char* body, size_t body_size, int* out_status,
                                    char** out_body, char** out_error) {
  if (repository == nullptr) {
    if (out_body != nullptr) *out_body = nullptr;
    return report(invalid("invalid_argument", "repository must not be NULL"), out_error);
  }
  return admin(view(user_id, user_id_size), view(method, method_size), view(target, target_size),
               view(body, body_size), out_status, out_body, out_error, *repository->administrator,
               [&](HttpRequest request) {
                 if (repository->gateway) return repository->gateway->handle(std::move(request));
                 return repository->alone.api->handle(request, make_uuid(repository->repository->random()));
               });
}

void mcpgw_repository_free(mcpgw_repository* repository) { delete repository; }

mcpgw_status mcpgw_policy_engine_create(mcpgw_repository* repository, mcpgw_policy_engine** out,
                                        char** out_error) {
  return make_handle(repository, out, out_error, [&] {
    return new mcpgw_policy_engine{repository->repository, repository->engine};
  });
}

mcpgw_status mcpgw_policy_engine_evaluate(mcpgw_policy_engine* engine, const char* question, size_t size,
                                          char** out, char** out_error) {
  return ask(engine, out, out_error, [&] { return evaluate(*engine, view(question, size), out); });
}

void mcpgw_policy_engine_free(mcpgw_policy_engine* engine) { delete engine; }

mcpgw_status mcpgw_token_resolver_create(mcpgw_repository* repository, mcpgw_token_resolver** out,
                                         char** out_error) {
  return make_handle(repository, out, out_error, [&] {
    return new mcpgw_token_resolver{repository->repository, TokenResolver(repository->repository)};
  });
}

mcpgw_status mcpgw_token_resolver_resolve(mcpgw_token_resolver* resolver, const char* question, size_t size,
                                          char** out, char** out_error) {
  return ask(resolver, out, out_error, [&]() -> Status {
    auto read = read_known(*resolver->repository, view(question, size));
    if (!read) return read.error();
    auto credential = resolver->resolver.resolve(*read->principal, *read->target);
    if (!credential) return credential.error();
    if (!*credential) return give(nullptr, out);
    const ResolvedCredential& found = **credential;
    return give({{"value", found.value},
                 {"scope", detail::to_text(found.scope.scope)},
                 {"scope_value", found.scope.value},
                 {"from_env", found.from_env}},
                out);
  });
}

void mcpgw_token_resolver_free(mcpgw_token_resolver* resolver) { delete resolver; }

mcpgw_status mcpgw_env_resolver_create(mcpgw_repository* repository, mcpgw_env_resolver** out,
                                       char** out_error) {
  return make_handle(repository, out, out_error, [&] {
    return new mcpgw_env_resolver{repository->repository, EnvResolver(repository->repository)};
  });
}

mcpgw_status mcpgw_env_resolver_resolve(mcpgw_env_resolver* resolver, const char* question, size_t size,
                                        char** out, char** out_error) {
  return ask(resolver, out, out_error, [&]() -> Status {
    auto read = read_known(*resolver->repository, view(question, size));
    if (!read) return read.error();
    auto values = resolver->resolver.resolve(*read->principal, *read->target);
    if (!values) return values.error();
    Json answer{{"values", Json::object()}, {"sources", Json::array()}};
    for (const auto& [key, value] : *values) answer["values"][key] = value;
    for (const ResolvedSource& source : resolver->resolver.sources(*read->principal, *read->target))
      answer["sources"].push_back({{"key", source.key},
                                   {"scope", detail::to_text(source.scope.scope)},
                                   {"scope_value", source.scope.value}});
    return give(answer, out);
  });
}

void mcpgw_env_resolver_free(mcpgw_env_resolver* resolver) { delete resolver; }
