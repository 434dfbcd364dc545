#include "kubernetes/kube_rules.hpp"

#include <algorithm>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::duration_cast;
using std::chrono::seconds;

/// A beat may be late, and clocks of replicas differ a little.
constexpr int kQuietBeats = 3;
/// After it, every replica has heard that an instance is retired.
constexpr auto kHeard = seconds(2);

std::string text_of(const Json& lease, const char* member) { return text_at(lease, {"spec", member}); }

}  // namespace

CollectRules CollectRules::of(const KubernetesOptions& options, Duration drain) {
  CollectRules out;
  out.idle_ttl = options.idle_ttl;
  out.max_lifetime = options.max_lifetime;
  out.drain = drain;
  // At most once a minute, and often enough that what is used never looks idle.
  out.beat = std::min<Duration>(seconds(60), out.idle_ttl / (2 * kQuietBeats));
  return out;
}

bool may_be_in_use(const PodInstance& record, const CollectRules& rules, Time now) {
  return now - record.last_used < kQuietBeats * rules.beat;
}

Due due(const PodInstance& record, const CollectRules& rules, std::optional<std::uint64_t> target_version,
        Time now) {
  if (record.deleting) return Due::nothing;
  const bool in_use = may_be_in_use(record, rules, now);
  if (record.retired_at) {
    const Duration since = now - *record.retired_at;
    // What is only old or idle lets its running calls end; what is not in force any more cuts them.
    const bool patient = record.retired_because == "idle" || record.retired_because == "lifetime";
    if (patient) return since >= kHeard && !in_use ? Due::remove : Due::nothing;
    return since >= rules.drain + kHeard ? Due::remove : Due::nothing;
  }
  // This replica may not have heard yet of a target whose first call another one serves.
  if (!target_version) return in_use ? Due::nothing : Due::retire_changed;
  if (*target_version > record.target_version) return Due::retire_changed;
  if (now - record.last_used >= rules.idle_ttl) return Due::retire_idle;
  if (now - record.created >= rules.max_lifetime) return Due::retire_old;
  return Due::nothing;
}

Election::Election(std::string identity, std::string name, std::string name_space, seconds duration)
    : identity_(std::move(identity)),
      name_(std::move(name)),
      namespace_(std::move(name_space)),
      duration_(duration) {}

Election::Step Election::next(const Json& seen, Duration monotonic, Time now) {
  Step step;
  const std::string stamp = format_time(now);
  const auto write = [&](std::int64_t transitions, const std::string& acquired) {
    Json lease = {
        {"apiVersion", "coordination.k8s.io/v1"},
        {"kind", "Lease"},
        {"metadata", {{"name", name_}, {"namespace", namespace_}, {"labels", {{kube::kManagedBy, "mcpgw"}}}}},
        {"spec",
         {{"holderIdentity", identity_},
          {"leaseDurationSeconds", duration_.count()},
          {"acquireTime", acquired},
          {"renewTime", stamp},
          {"leaseTransitions", transitions}}}};
    if (seen.is_object())
      lease["metadata"]["resourceVersion"] = text_at(seen, {"metadata", "resourceVersion"});
    return lease;
  };
  if (!seen.is_object()) {
    step.action = Step::Action::create;
    step.lease = write(0, stamp);
    return step;
  }
  const std::string holder = text_of(seen, "holderIdentity");
  const Json& counted = at_path(seen, {"spec", "leaseTransitions"});
  const std::int64_t transitions = counted.is_number_integer() ? counted.get<std::int64_t>() : 0;
  if (holder == identity_) {
    step.action = Step::Action::update;
    const std::string acquired = text_of(seen, "acquireTime");
    step.lease = write(transitions, acquired.empty() ? stamp : acquired);
    return step;
  }
  leads_until_.reset();
  const std::string state =
      text_at(seen, {"metadata", "resourceVersion"}) + holder + text_of(seen, "renewTime");
  if (state != seen_) {
    seen_ = state;
    seen_at_ = monotonic;
  }
  const Json& told = at_path(seen, {"spec", "leaseDurationSeconds"});
  // A damaged lease is no one's for ever.
  const seconds theirs(told.is_number_integer() ? std::clamp<std::int64_t>(told.get<std::int64_t>(), 1, 3600)
                                                : 60);
  if (!holder.empty() && monotonic - seen_at_ < theirs) return step;
  step.action = Step::Action::update;
  step.lease = write(transitions + 1, stamp);
  return step;
}

void Election::written(Duration asked_at) { leads_until_ = asked_at + duration_; }

void Election::lost() { leads_until_.reset(); }

bool Election::leads(Duration monotonic) const { return leads_until_ && monotonic < *leads_until_; }

std::optional<Json> Election::release(const Json& seen) const {
  if (!seen.is_object() || text_of(seen, "holderIdentity") != identity_) return std::nullopt;
  Json lease = seen;
  lease["metadata"].erase("managedFields");
  lease["spec"]["holderIdentity"] = "";
  lease["spec"]["leaseDurationSeconds"] = 1;
  return lease;
}

}  // namespace mcpgw::detail
