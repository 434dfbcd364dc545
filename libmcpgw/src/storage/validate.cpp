// Rules for users, tokens, policies and free text. Targets: validate_target.cpp. Environment:
// validate_env.cpp.
#include "storage/validate.hpp"

#include <re2/re2.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/text.hpp"
#include "storage/validate_support.hpp"

namespace mcpgw::detail {

Error invalid(std::string_view field, std::string message, std::string_view reason) {
  return Error(ErrorCode::invalid_argument, std::string(reason), std::move(message), std::string(field));
}

Status validate_text(std::string_view text, std::size_t max, std::string_view field,
                     std::string_view allowed_controls) {
  const std::string name(field);
  if (!is_utf8(text)) return invalid(field, name + " must be valid UTF-8");
  if (has_control(text, allowed_controls))
    return invalid(field, name + " must not contain control characters");
  if (utf8_length(text) > max)
    return invalid(field, name + " must have at most " + std::to_string(max) + " characters");
  return {};
}

Status validate_description(std::string_view text, std::size_t max) {
  return validate_text(text, max, "description", "\t\n");
}

namespace {

bool is_domain_label(std::string_view label) {
  if (label.empty() || label.size() > 63 || label.front() == '-' || label.back() == '-') return false;
  return std::all_of(label.begin(), label.end(), [](char c) {
    return is_alnum(c) || c == '-' || static_cast<unsigned char>(c) >= 0x80;  // internationalised names
  });
}

}  // namespace

Status validate_email(std::string& email) {
  std::string text = to_lower(trim(email));
  if (text.empty()) return invalid("email", "An email address is required");
  if (auto status = validate_text(text, 254, "email"); !status) return status;
  const auto at = text.find('@');
  const bool one_at = at != std::string::npos && text.find('@', at + 1) == std::string::npos;
  if (!one_at || at == 0 || text.find(' ') != std::string::npos)
    return invalid("email", "email must have the form name@domain");
  for (const std::string& label : split(std::string_view(text).substr(at + 1), '.'))
    if (!is_domain_label(label)) return invalid("email", "The domain of the email address is malformed");
  email = std::move(text);
  return {};
}

Status validate_role(std::string_view role, std::string_view field) {
  const bool form = !role.empty() && role.size() <= 50 && is_alnum(role.front()) &&
                    std::all_of(role.begin(), role.end(),
                                [](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '-'; });
  if (!form)
    return invalid(field,
                   "A role is 1 to 50 letters, digits, '.', '_' or '-', and starts with a letter or digit");
  return {};
}

Status validate_group(std::string& group, std::string_view field) {
  const std::string_view text = trim(group);
  if (text.empty()) return invalid(field, "A group name must not be empty");
  if (auto status = validate_text(text, 100, field); !status) return status;
  if (text.find(',') != std::string_view::npos)
    return invalid(field, "A group name must not contain a comma");
  group = std::string(text);
  return {};
}

Status validate_groups(std::vector<std::string>& groups) {
  if (groups.size() > 100) return invalid("groups", "A user can be in at most 100 groups");
  std::vector<std::string> kept;
  std::set<std::string> seen;
  for (std::string group : groups) {
    if (auto status = validate_group(group, "groups"); !status) return status;
    if (seen.insert(group).second) kept.push_back(std::move(group));
  }
  groups = std::move(kept);
  return {};
}

Status validate_user(User& user) {
  if (auto status = validate_email(user.email); !status) return status;
  if (auto status = validate_role(user.role); !status) return status;
  return validate_groups(user.groups);
}

Status validate_token(ApiToken& token, Time now) {
  if (auto status = validate_text(token.name, 100, "name"); !status) return status;
  if (token.kind == TokenKind::api && (token.name == "Login" || token.name == "Default"))
    return invalid("name", "The names Login and Default are reserved", "reserved_name");
  std::vector<std::string> scopes;
  for (const std::string& scope : token.scopes) {
    if (scope != "mcp" && scope != "api") return invalid("scopes", "A scope is mcp or api");
    if (std::find(scopes.begin(), scopes.end(), scope) == scopes.end()) scopes.push_back(scope);
  }
  if (scopes.empty()) return invalid("scopes", "A token needs at least one scope");
  token.scopes = std::move(scopes);
  if (token.expires_at && *token.expires_at <= now)
    return invalid("expires_at", "expires_at must be in the future");
  return {};
}

Status validate_pattern(std::string_view pattern) {
  constexpr std::string_view field = "resource_pattern";
  if (auto status = validate_text(pattern, 1024, field); !status) return status;
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(2 << 20);  // as the policy engine compiles it
  const RE2 compiled(re2::StringPiece(pattern.data(), pattern.size()), options);
  if (!compiled.ok()) return invalid(field, "resource_pattern is not a valid RE2 pattern", "invalid_pattern");
  return {};
}

Status validate_subject(Subject& subject) {
  switch (subject.type) {
    case SubjectType::everyone:
      subject.value.clear();
      return {};
    case SubjectType::role:
      return validate_role(subject.value, "subject_value");
    case SubjectType::group:
      return validate_group(subject.value, "subject_value");
    case SubjectType::user:
      break;
  }
  if (!is_uuid(subject.value))
    return invalid("subject_value", "There is no user with this id", "unknown_user");
  return {};
}

Status validate_policy(Policy& policy) {
  if (trim(policy.name).empty()) return invalid("name", "A policy needs a name");
  if (auto status = validate_text(policy.name, 255, "name"); !status) return status;
  if (auto status = validate_description(policy.description); !status) return status;
  if (!policy.resource_pattern.empty())
    if (auto status = validate_pattern(policy.resource_pattern); !status) return status;
  if (policy.priority < -1000000 || policy.priority > 1000000)
    return invalid("priority", "priority must be between -1000000 and 1000000");
  if (policy.subjects.size() > kMaxSubjects)
    return invalid("subjects", "A policy can have at most " + std::to_string(kMaxSubjects) + " subjects");
  std::set<std::pair<SubjectType, std::string>> seen;
  for (Subject& subject : policy.subjects) {
    if (auto status = validate_subject(subject); !status) {
      status.error().field = "subjects";
      return status;
    }
    if (!seen.emplace(subject.type, subject.value).second)
      return Error(ErrorCode::conflict, "duplicate_subject", "The policy has this subject already",
                   "subjects");
  }
  return {};
}

}  // namespace mcpgw::detail
