#include "mcpgw/resolvers.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace mcpgw {

using namespace detail;

namespace {

bool has_values(const Repository& repository, const Target& target, const ScopeRef& scope) {
  return repository.target_token(target.id, scope).has_value() ||
         !repository.env_rows(target.id, scope).empty();
}

/// The one group whose values a per_group instance holds.
std::optional<std::string> boundary_group(const Repository& repository, const Principal& principal,
                                          const Target& target) {
  for (const std::string& group : principal.groups)
    if (has_values(repository, target, {Scope::group, group})) return group;
  if (!principal.groups.empty()) return principal.groups.front();
  return std::nullopt;
}

}  // namespace

bool scope_usable(const Target& target, Scope scope) noexcept {
  if (!target.is_process() || scope == Scope::everyone) return true;
  switch (target.isolation_boundary) {
    case Isolation::shared:
      return false;
    case Isolation::per_role:
      return scope == Scope::role;
    case Isolation::per_group:
      return scope == Scope::group;
    case Isolation::per_user:
      return true;
  }
  return true;  // an unknown word counts as per_user
}

std::vector<ScopeRef> applicable_scopes(const Repository& repository, const Principal& principal,
                                        const Target& target) {
  std::vector<ScopeRef> out;
  const auto add = [&](Scope scope, const std::string& value) {
    if (!value.empty() && scope_usable(target, scope)) out.push_back({scope, value});
  };
  add(Scope::user, principal.user_id);
  if (target.is_process() && target.isolation_boundary == Isolation::per_group) {
    if (const auto group = boundary_group(repository, principal, target)) add(Scope::group, *group);
  } else {
    for (const std::string& group : principal.groups) add(Scope::group, group);
  }
  add(Scope::role, principal.role);
  out.push_back({Scope::everyone, ""});
  return out;
}

std::string boundary_subject(const Repository& repository, const Principal& principal, const Target& target) {
  if (!target.is_process()) return "user:" + principal.user_id;
  switch (target.isolation_boundary) {
    case Isolation::shared:
      return "";
    case Isolation::per_role:
      return "role:" + principal.role;
    case Isolation::per_group: {
      const auto group = boundary_group(repository, principal, target);
      return group ? "group:" + *group : std::string();
    }
    case Isolation::per_user:
      break;
  }
  return "user:" + principal.user_id;
}

TokenResolver::TokenResolver(std::shared_ptr<Repository> repository) : repository_(std::move(repository)) {}

Result<std::optional<ResolvedCredential>> TokenResolver::resolve(const Principal& principal,
                                                                 const Target& target) const {
  for (const ScopeRef& scope : applicable_scopes(*repository_, principal, target)) {
    auto env = repository_->reveal_env(target.id, scope);
    if (!env) return env.error();
    if (const auto row = env->find("AUTH_TOKEN"); row != env->end())
      return std::optional(ResolvedCredential{row->second, scope, true});
    if (target.auth_type == AuthType::none) continue;
    auto token = repository_->reveal_target_token(target.id, scope);
    if (!token) return token.error();
    if (*token) return std::optional(ResolvedCredential{**token, scope, false});
  }
  return std::optional<ResolvedCredential>();
}

EnvResolver::EnvResolver(std::shared_ptr<Repository> repository) : repository_(std::move(repository)) {}

Result<std::map<std::string, std::string>> EnvResolver::resolve(const Principal& principal,
                                                                const Target& target) const {
  std::map<std::string, std::string> out;
  // Keys become header names on HTTP targets, which have no case: the narrower scope wins over any spelling.
  std::map<std::string, std::string> spelling;
  for (const ScopeRef& scope : applicable_scopes(*repository_, principal, target)) {
    auto env = repository_->reveal_env(target.id, scope);
    if (!env) return env.error();
    for (auto& [key, value] : *env) {
      if (!target.is_process() && !spelling.emplace(to_lower(key), key).second) continue;
      out.emplace(key, std::move(value));
    }
  }
  return out;
}

std::vector<ResolvedSource> EnvResolver::sources(const Principal& principal, const Target& target) const {
  std::map<std::string, ResolvedSource> found;
  std::map<std::string, std::string> spelling;
  for (const ScopeRef& scope : applicable_scopes(*repository_, principal, target)) {
    for (const EnvRow& row : repository_->env_rows(target.id, scope)) {
      if (!target.is_process() && !spelling.emplace(to_lower(row.key), row.key).second) continue;
      found.emplace(row.key, ResolvedSource{row.key, scope});
    }
  }
  std::vector<ResolvedSource> out;
  out.reserve(found.size());
  for (auto& [key, source] : found) out.push_back(std::move(source));
  return out;
}

}  // namespace mcpgw
