#include "mcpgw/policy_engine.hpp"

#include <re2/re2.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <unordered_map>

#include "base/shared_apart.hpp"

namespace mcpgw {
namespace {

/// Memory of one compiled pattern, its automata included. RE2 stays linear when it is used up.
constexpr std::int64_t kPatternMemory = 2 << 20;

RE2::Options pattern_options() {
  RE2::Options out;
  out.set_log_errors(false);
  out.set_max_mem(kPatternMemory);
  return out;
}

struct Compiled {
  std::shared_ptr<const Policy> policy;
  std::shared_ptr<const RE2> pattern;  ///< null: every name
  bool unevaluable = false;            ///< denies whatever it might concern
};

/// Priority first; then deny before allow, so that of two equals the careful one decides.
bool before(const Compiled& a, const Compiled& b) {
  if (a.policy->damaged != b.policy->damaged) return a.policy->damaged;  // its priority is not to be trusted
  if (a.policy->priority != b.policy->priority) return a.policy->priority > b.policy->priority;
  const bool a_denies = a.unevaluable || a.policy->effect == Effect::deny;
  const bool b_denies = b.unevaluable || b.policy->effect == Effect::deny;
  if (a_denies != b_denies) return a_denies;
  if (a.policy->created_at != b.policy->created_at) return a.policy->created_at < b.policy->created_at;
  return a.policy->id < b.policy->id;
}

bool matches(const Subject& subject, const Principal& principal) {
  switch (subject.type) {
    case SubjectType::everyone:
      return true;
    case SubjectType::user:
      return !subject.value.empty() && subject.value == principal.user_id;
    case SubjectType::role:
      return !subject.value.empty() && subject.value == principal.role;
    case SubjectType::group:
      return std::find(principal.groups.begin(), principal.groups.end(), subject.value) !=
             principal.groups.end();
  }
  return false;
}

bool subject_matches(const Policy& policy, const Principal& principal) {
  return std::any_of(policy.subjects.begin(), policy.subjects.end(),
                     [&](const Subject& subject) { return matches(subject, principal); });
}

bool type_matches(const Policy& policy, ResourceType type) {
  return policy.resource_type == ResourceType::all || policy.resource_type == type;
}

/// Everything a decision needs. Never changed once it is in force.
struct Snapshot {
  std::vector<Compiled> policies;  ///< in the order of evaluation, disabled ones included
  std::unordered_map<std::string, std::shared_ptr<const Target>> targets;
  std::unordered_map<std::string, std::vector<const Compiled*>> by_target;  ///< enabled ones that concern it
  std::vector<std::shared_ptr<const Target>> by_slug;
};

}  // namespace

const char* to_string(DecisionReason reason) noexcept {
  switch (reason) {
    case DecisionReason::matched_allow:
      return "matched_allow";
    case DecisionReason::matched_deny:
      return "matched_deny";
    case DecisionReason::no_matching_policy:
      return "no_matching_policy";
    case DecisionReason::target_disabled:
      return "target_disabled";
    case DecisionReason::unknown_target:
      return "no_matching_policy";
    case DecisionReason::unevaluable_policy:
      return "unevaluable_policy";
  }
  return "no_matching_policy";
}

class PolicyEngine::Impl {
 public:
  explicit Impl(std::shared_ptr<Repository> repository) : repository_(std::move(repository)) {
    listener_ = repository_->add_listener([this](const RepositoryChange& change) {
      if (change.kind == RepositoryChange::Kind::policy || change.kind == RepositoryChange::Kind::target)
        rebuild();
    });
    rebuild();
  }
  ~Impl() { repository_->remove_listener(listener_); }

  std::shared_ptr<const Snapshot> snapshot() const { return snapshot_.get(); }
  std::uint64_t generation() const noexcept { return generation_.load(std::memory_order_acquire); }

  /// Whether an enabled policy, all but its pattern, applies to the question.
  static bool concerns(const Compiled& compiled, const Principal& principal, ResourceType type) {
    if (compiled.policy->damaged) return true;
    return type_matches(*compiled.policy, type) && subject_matches(*compiled.policy, principal);
  }

  static Decision decide(const Compiled& compiled) {
    Decision out;
    out.policy_id = compiled.policy->id;
    out.policy_name = compiled.policy->name;
    if (compiled.unevaluable) {
      out.reason = DecisionReason::unevaluable_policy;
    } else {
      out.effect = compiled.policy->effect;
      out.reason = out.allowed() ? DecisionReason::matched_allow : DecisionReason::matched_deny;
    }
    return out;
  }

  /// The first policy of the walk for reach: an allow (of anything) or a deny of everything.
  static const Compiled* reach_of(const Snapshot& snapshot, const Principal& principal,
                                  const std::string& target_id, ResourceType type) {
    const auto list = snapshot.by_target.find(target_id);
    if (list == snapshot.by_target.end()) return nullptr;
    for (const Compiled* compiled : list->second) {
      if (!concerns(*compiled, principal, type)) continue;
      const bool denies = compiled->unevaluable || compiled->policy->effect == Effect::deny;
      if (!denies || compiled->unevaluable || !compiled->pattern) return compiled;
    }
    return nullptr;
  }

  static bool allows(const Compiled* compiled) {
    return compiled != nullptr && !compiled->unevaluable && compiled->policy->effect == Effect::allow;
  }

  static bool reaches(const Snapshot& snapshot, const Principal& principal, const std::string& target_id) {
    return allows(reach_of(snapshot, principal, target_id, ResourceType::tool)) ||
           allows(reach_of(snapshot, principal, target_id, ResourceType::resource)) ||
           allows(reach_of(snapshot, principal, target_id, ResourceType::prompt));
  }

 private:
  void rebuild() {
    const std::lock_guard building(rebuild_mutex_);
    auto out = std::make_shared<Snapshot>();
    for (auto& target : repository_->targets()) {
      out->by_slug.push_back(target);
      out->targets.emplace(target->id, std::move(target));
    }
    std::sort(out->by_slug.begin(), out->by_slug.end(),
              [](const auto& a, const auto& b) { return a->slug < b->slug; });
    std::map<std::string, std::shared_ptr<const RE2>> patterns;
    for (auto& policy : repository_->policies()) {
      Compiled compiled;
      compiled.unevaluable = policy->damaged;
      if (!policy->resource_pattern.empty()) {
        auto& pattern = patterns[policy->resource_pattern];
        if (!pattern) {
          const auto known = patterns_.find(policy->resource_pattern);
          pattern = known != patterns_.end()
                        ? known->second
                        : std::make_shared<const RE2>(policy->resource_pattern, pattern_options());
        }
        compiled.pattern = pattern;
        compiled.unevaluable |= !pattern->ok();
      }
      compiled.policy = std::move(policy);
      out->policies.push_back(std::move(compiled));
    }
    std::sort(out->policies.begin(), out->policies.end(), before);
    for (const auto& [id, target] : out->targets) {
      auto& list = out->by_target[id];
      for (const Compiled& compiled : out->policies) {
        if (!compiled.policy->enabled && !compiled.policy->damaged) continue;
        if (compiled.policy->target_id.empty() || compiled.policy->target_id == id) list.push_back(&compiled);
      }
    }
    patterns_ = std::move(patterns);
    snapshot_.set(out);
    generation_.fetch_add(1, std::memory_order_acq_rel);
  }

  const std::shared_ptr<Repository> repository_;
  std::uint64_t listener_ = 0;
  std::mutex rebuild_mutex_;  // one rebuild at a time, so the last one saw everything
  std::map<std::string, std::shared_ptr<const RE2>> patterns_;  // guarded by rebuild_mutex_
  std::atomic<std::uint64_t> generation_{1};
  detail::SharedApart<const Snapshot> snapshot_;
};

std::shared_ptr<PolicyEngine> PolicyEngine::create(std::shared_ptr<Repository> repository) {
  return std::shared_ptr<PolicyEngine>(new PolicyEngine(std::make_unique<Impl>(std::move(repository))));
}

PolicyEngine::PolicyEngine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PolicyEngine::~PolicyEngine() = default;

std::uint64_t PolicyEngine::generation() const noexcept { return impl_->generation(); }

Decision PolicyEngine::evaluate(const Principal& principal, const std::string& target_id, ResourceType type,
                                std::string_view name) const {
  const auto snapshot = impl_->snapshot();
  Decision out;
  const auto target = snapshot->targets.find(target_id);
  if (target == snapshot->targets.end()) {
    out.reason = DecisionReason::unknown_target;
    return out;
  }
  if (!target->second->enabled) {
    out.reason = DecisionReason::target_disabled;
    return out;
  }
  for (const Compiled* compiled : snapshot->by_target.at(target_id)) {
    if (!Impl::concerns(*compiled, principal, type)) continue;
    if (!compiled->unevaluable && compiled->pattern &&
        !RE2::PartialMatch(re2::StringPiece(name.data(), name.size()), *compiled->pattern))
      continue;
    return Impl::decide(*compiled);
  }
  return out;
}

bool PolicyEngine::reaches(const Principal& principal, const std::string& target_id) const {
  const auto snapshot = impl_->snapshot();
  const auto target = snapshot->targets.find(target_id);
  return target != snapshot->targets.end() && target->second->enabled &&
         Impl::reaches(*snapshot, principal, target_id);
}

std::vector<std::shared_ptr<const Target>> PolicyEngine::reached_targets(const Principal& principal) const {
  const auto snapshot = impl_->snapshot();
  std::vector<std::shared_ptr<const Target>> out;
  for (const auto& target : snapshot->by_slug)
    if (target->enabled && Impl::reaches(*snapshot, principal, target->id)) out.push_back(target);
  return out;
}

Explanation PolicyEngine::explain(const Principal& principal, const std::string& target_id, ResourceType type,
                                  std::string_view name) const {
  const auto snapshot = impl_->snapshot();
  Explanation out;
  const bool about_reach = type == ResourceType::all;
  const auto target = snapshot->targets.find(target_id);
  if (target == snapshot->targets.end()) {
    out.decision.reason = DecisionReason::unknown_target;
    return out;
  }
  if (!target->second->enabled) out.decision.reason = DecisionReason::target_disabled;

  // Which policy decides is told by the very functions that decide.
  const Compiled* decisive = nullptr;
  if (target->second->enabled) {
    if (about_reach) {
      const Compiled* first_deny = nullptr;
      for (const ResourceType one : {ResourceType::tool, ResourceType::resource, ResourceType::prompt}) {
        const Compiled* compiled = Impl::reach_of(*snapshot, principal, target_id, one);
        if (Impl::allows(compiled)) {
          decisive = compiled;
          break;
        }
        if (compiled != nullptr && first_deny == nullptr) first_deny = compiled;
      }
      if (decisive == nullptr) decisive = first_deny;
      if (decisive != nullptr) out.decision = Impl::decide(*decisive);
    } else {
      out.decision = evaluate(principal, target_id, type, name);
    }
  }
  for (const Compiled& compiled : snapshot->policies) {
    const Policy& policy = *compiled.policy;
    Considered one{policy.id,       policy.name, compiled.unevaluable ? Effect::deny : policy.effect,
                   policy.priority, false,       ""};
    if (!policy.enabled && !policy.damaged) {
      one.why = "disabled";
    } else if (!policy.target_id.empty() && policy.target_id != target_id) {
      one.why = "target";
    } else if (!policy.damaged && !subject_matches(policy, principal)) {
      one.why = "subject";
    } else if (!policy.damaged && !about_reach && !type_matches(policy, type)) {
      one.why = "type";
    } else if (!compiled.unevaluable && !about_reach && compiled.pattern &&
               !RE2::PartialMatch(re2::StringPiece(name.data(), name.size()), *compiled.pattern)) {
      one.why = "pattern";
    } else if (about_reach && compiled.pattern && policy.effect == Effect::deny && !compiled.unevaluable) {
      one.why = "pattern";  // a deny of some items never closes a target
    } else {
      one.why = "matched";
      one.matched = true;
    }
    out.considered.push_back(std::move(one));
  }
  return out;
}

std::vector<Policy> PolicyEngine::visible_policies(const Principal& principal) const {
  const auto snapshot = impl_->snapshot();
  std::vector<Policy> out;
  for (const Compiled& compiled : snapshot->policies) {
    const Policy& policy = *compiled.policy;
    if (!policy.enabled || policy.damaged || !subject_matches(policy, principal)) continue;
    Policy copy = policy;
    copy.subjects.erase(std::remove_if(copy.subjects.begin(), copy.subjects.end(),
                                       [&](const Subject& subject) { return !matches(subject, principal); }),
                        copy.subjects.end());
    out.push_back(std::move(copy));
  }
  std::sort(out.begin(), out.end(), [](const Policy& a, const Policy& b) {
    if (a.priority != b.priority) return a.priority > b.priority;
    return a.name != b.name ? a.name < b.name : a.id < b.id;
  });
  return out;
}

Status PolicyEngine::check_pattern(std::string_view pattern) {
  const RE2 compiled(re2::StringPiece(pattern.data(), pattern.size()), pattern_options());
  if (compiled.ok()) return {};
  return Error(ErrorCode::invalid_argument, "invalid_pattern",
               "The pattern is not valid RE2: " + compiled.error(), "resource_pattern");
}

}  // namespace mcpgw
