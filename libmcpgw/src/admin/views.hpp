// Stored objects as the REST API shows them: which members, which are left out when empty, which may be null,
// and what a plain user does not see. No view holds a secret.
#pragma once

#include "json/json.hpp"
#include "mcpgw/admin_api.hpp"

namespace mcpgw::detail {

Json user_view(const User& user);
Json token_view(const ApiToken& token);
/// `status` is given for admins; without it the plain user's view.
Json target_view(const Target& target, const TargetStatus* status);
Json subject_view(const Subject& subject);
Json policy_view(const Policy& policy);
Json env_view(const EnvRow& row, const Target& target);
Json log_view(const AuditRecord& record);
Json explanation_view(const Explanation& explanation);

}  // namespace mcpgw::detail
