// PolicyEngine: may this principal use this item of this target? Default deny.
//
// The rules (order, patterns, reach) are those of docs/policies.md. A "deny" is a value, not an error;
// whatever cannot be evaluated denies.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/model.hpp"
#include "mcpgw/repository.hpp"
#include "mcpgw/result.hpp"

namespace mcpgw {

enum class DecisionReason {
  matched_allow,
  matched_deny,
  no_matching_policy,
  target_disabled,
  unknown_target,       ///< shown as no_matching_policy to everyone but admins
  unevaluable_policy,
};
const char* to_string(DecisionReason reason) noexcept;

struct Decision {
  Effect effect = Effect::deny;
  DecisionReason reason = DecisionReason::no_matching_policy;
  std::string policy_id;    ///< the policy that decided, if one did
  std::string policy_name;
  bool allowed() const noexcept { return effect == Effect::allow; }
};

/// One policy that was looked at, for explain().
struct Considered {
  std::string policy_id;
  std::string policy_name;
  Effect effect = Effect::deny;
  int priority = 0;
  bool matched = false;
  std::string why;  ///< "subject", "target", "type", "pattern", "disabled", "matched"
};

struct Explanation {
  Decision decision;
  std::vector<Considered> considered;  ///< in the order of evaluation
};

/// Safe from any thread. Evaluations read an immutable compiled snapshot, take no lock, do no I/O and
/// never call storage; the snapshot is rebuilt before a policy write returns.
class PolicyEngine {
 public:
  static std::shared_ptr<PolicyEngine> create(std::shared_ptr<Repository> repository);
  ~PolicyEngine();
  PolicyEngine(const PolicyEngine&) = delete;
  PolicyEngine& operator=(const PolicyEngine&) = delete;

  /// `type` is tool, resource or prompt; `name` the item's original name or URI.
  Decision evaluate(const Principal& principal, const std::string& target_id, ResourceType type,
                    std::string_view name) const;

  /// Whether the target is enabled and policy could allow at least one of its items.
  bool reaches(const Principal& principal, const std::string& target_id) const;

  /// The reached targets, ordered by slug.
  std::vector<std::shared_ptr<const Target>> reached_targets(const Principal& principal) const;

  /// As evaluate(), with the policies that were looked at. With type `all`, asks about reach.
  Explanation explain(const Principal& principal, const std::string& target_id, ResourceType type,
                      std::string_view name) const;

  /// The enabled policies with a subject that matches, subjects reduced to the matching ones.
  std::vector<Policy> visible_policies(const Principal& principal) const;

  /// Changes whenever a decision or the set of targets could have changed. For caches of lists.
  std::uint64_t generation() const noexcept;

  /// Ok when `pattern` is valid RE2; else invalid_argument/"invalid_pattern".
  static Status check_pattern(std::string_view pattern);

 private:
  class Impl;
  explicit PolicyEngine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace mcpgw
