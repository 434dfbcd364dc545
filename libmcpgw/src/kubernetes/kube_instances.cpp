#include "kubernetes/kube_instances.hpp"

#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr auto kApiPatience = seconds(20);
/// A loop that nobody needs any more ends within this.
constexpr auto kNap = milliseconds(200);
constexpr int kMaxGenerations = 20;  // tried in one start: each was retired meanwhile
/// Tries of a write that another one, done in the same moment, has got in the way of.
constexpr int kMaxConflicts = 6;
constexpr auto kAfterConflict = milliseconds(50);
constexpr std::size_t kMaxSecret = 900 * 1024;
constexpr const char* kLease = "mcpgw-collector";

Error not_started(const std::string& cause) {
  return {ErrorCode::unavailable, "upstream_unreachable", "Kubernetes: " + cause};
}

/// What the API refused, as the reason why a target cannot be used.
Error as_upstream(const Error& error) {
  if (error.reason != "kubernetes_api") return error;
  return not_started(error.message);
}

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "mcpgw";
  return name;
}

}  // namespace

Result<std::shared_ptr<KubeInstances>> KubeInstances::create(Parts parts) {
  if (auto fault = kubernetes_fault(parts.options); !fault.empty())
    return Error(ErrorCode::invalid_argument, "invalid_request", std::move(fault), "kubernetes");
  std::shared_ptr<KubeInstances> out(new KubeInstances(std::move(parts)));
  out->begin();
  return out;
}

KubeInstances::KubeInstances(Parts parts)
    : parts_(std::move(parts)),
      rules_(CollectRules::of(parts_.options, parts_.drain)),
      client_(std::make_shared<KubeClient>(parts_.runtime, parts_.options.access, parts_.log)) {}

void KubeInstances::begin() {
  const std::weak_ptr<KubeInstances> weak = weak_from_this();
  KubeClient::WatchHandler handler;
  handler.on_list = [weak](std::vector<Json> all, SteadyTime asked_at) {
    if (const auto self = weak.lock()) self->see_all(all, asked_at);
  };
  handler.on_event = [weak](KubeEvent event) {
    const auto self = weak.lock();
    if (!self) return;
    if (event.type == KubeEvent::Type::deleted)
      self->gone(text_at(event.object, {"metadata", "name"}), text_at(event.object, {"metadata", "uid"}));
    else
      self->see(event.object);
  };
  handler.on_health = [weak](bool works, const std::string& why) {
    const auto self = weak.lock();
    if (!self) return;
    {
      const std::lock_guard lock(self->mutex_);
      self->trouble_ = works ? std::string() : why;
    }
    self->log(works ? LogLevel::info : LogLevel::warn,
              works ? "the Kubernetes API is back" : "the Kubernetes API cannot be used", {{"cause", why}});
  };
  handler.stopped = [weak] { return weak.expired(); };
  Loop& loop = parts_.runtime->impl().any_loop();
  loop.post([&loop, weak, handler, client = client_, stop = watching_,
             path = collection("apis/apps/v1", "deployments")] {
    loop.spawn(KubeClient::watch(client, path, kube::kSelector, handler, stop));
    loop.spawn(beat(weak));
    loop.spawn(collect(weak));
  });
}

void KubeInstances::stop() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(stopped_, true)) return;
  }
  if (leading_.load() && parts_.farewells) {
    parts_.farewells->fetch_add(1);
    farewell_.store(true);
  }
  watching_->stop();
}

std::string KubeInstances::collection(const char* group, const char* plural) const {
  return "/" + std::string(group) + "/namespaces/" + parts_.options.name_space + "/" + plural;
}

void KubeInstances::log(LogLevel level, std::string message,
                        std::vector<std::pair<std::string, std::string>> fields) const {
  if (parts_.log) parts_.log({level, "upstream", std::move(message), std::move(fields)});
}

// --- what the cluster has ---------------------------------------------------------------------------------

/// Whether the answer to a write was overtaken by the watch, which has told of what came after it.
static bool is_older(const std::string& version, const std::string& known) {
  const auto number = [](const std::string& text) {
    return !text.empty() && text.front() != '0' &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  if (!number(version) || !number(known)) return false;
  return version.size() != known.size() ? version.size() < known.size() : version < known;
}

void KubeInstances::see(const Json& deployment, std::optional<SteadyTime> listed_at) {
  auto record = read_instance(deployment);
  if (!record) return;
  const std::string name = record->name;
  const bool cut =
      record->deleting || (record->retired_because != "idle" && record->retired_because != "lifetime");
  bool retired = false;
  {
    const std::lock_guard lock(mutex_);
    Known& known = known_[name];
    // What is known from before a list was asked for is what the list says, even where the API's history was
    // put back to a copy of it.
    const bool comparable = listed_at ? known.told_at >= *listed_at : known.record.uid == record->uid;
    if (comparable && is_older(record->resource_version, known.record.resource_version)) return;
    const bool was_retired = known.record.uid == record->uid && known.record.retired();
    retired = record->retired() && !was_retired;
    known = {std::move(*record), deployment, steady_clock::now()};
  }
  if (retired && parts_.events.on_retired) parts_.events.on_retired(name, cut);
}

void KubeInstances::see_all(const std::vector<Json>& deployments, SteadyTime asked_at) {
  std::set<std::string> present;
  for (const Json& deployment : deployments) present.insert(text_at(deployment, {"metadata", "name"}));
  std::vector<std::string> missing;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, known] : known_)
      if (!present.contains(name) && known.told_at < asked_at) missing.push_back(name);
  }
  for (const std::string& name : missing) gone(name);
  for (const Json& deployment : deployments) see(deployment, asked_at);
  listed_->set();
}

void KubeInstances::gone(const std::string& name, const std::string& uid) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto it = known_.find(name); it != known_.end()) {
      if (!uid.empty() && it->second.record.uid != uid) return;
      known_.erase(it);
    }
    noted_.erase(name);
  }
  if (parts_.events.on_retired) parts_.events.on_retired(name, true);
}

std::optional<KubeInstances::Known> KubeInstances::known(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto it = known_.find(name);
  return it == known_.end() ? std::nullopt : std::optional(it->second);
}

std::vector<PodInstance> KubeInstances::records() const {
  std::vector<PodInstance> out;
  const std::lock_guard lock(mutex_);
  out.reserve(known_.size());
  for (const auto& [name, known] : known_) out.push_back(known.record);
  return out;
}

int KubeInstances::count(const std::string& target_id) const {
  const auto all = records();
  return static_cast<int>(std::count_if(all.begin(), all.end(), [&](const PodInstance& record) {
    return record.target_id == target_id && !record.retired();
  }));
}

std::map<std::string, InstanceUse> KubeInstances::uses() const {
  std::map<std::string, InstanceUse> out;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, count] : held_) out[name] = {name, count};
  }
  if (!parts_.events.uses) return out;
  for (InstanceUse& use : parts_.events.uses()) {
    const auto [it, inserted] = out.emplace(use.name, use);
    if (inserted) continue;
    it->second.in_flight += use.in_flight;
    it->second.idle_since = std::max(it->second.idle_since, use.idle_since);
  }
  return out;
}

// --- starting ---------------------------------------------------------------------------------------------

Task<Result<RunningInstance>> KubeInstances::acquire(WantedInstance wanted, SteadyTime deadline) {
  const auto kept = shared_from_this();
  std::shared_ptr<Start> start;
  bool begin_now = false;
  {
    const std::lock_guard lock(mutex_);
    if (stopped_) co_return Error(ErrorCode::unavailable, "shutting_down", "The gateway is closing");
    std::shared_ptr<Start>& slot = starting_[wanted.key];
    if (!slot) {
      slot = std::make_shared<Start>();
      begin_now = true;
    }
    start = slot;
  }
  // Detached: others wait for it, and the caller's deadline must not end it for them.
  if (begin_now) Loop::current()->spawn(run_start(kept, std::move(wanted), start));
  if (!co_await start->done.wait(deadline))
    co_return Error(ErrorCode::deadline_exceeded, "upstream_timeout", "The server did not get ready in time");
  co_return *start->result;
}

Task<void> KubeInstances::run_start(std::shared_ptr<KubeInstances> self, WantedInstance wanted,
                                    std::shared_ptr<Start> start) {
  const std::string key = wanted.key;
  const std::string target = wanted.target->name;
  auto result = co_await self->begin_instance(std::move(wanted));
  if (result)
    self->log(LogLevel::info, "an instance is ready", {{"target", target}, {"name", result->name}});
  else
    self->log(LogLevel::warn, "an instance could not be started",
              {{"target", target}, {"cause", result.error().message}});
  {
    const std::lock_guard lock(self->mutex_);
    start->result = std::move(result);
    self->starting_.erase(key);
  }
  start->done.set();
}

/// While somebody waits for its start, or has not connected yet, it is not idle, however long that is.
class KubeInstances::Held {
 public:
  Held(std::weak_ptr<KubeInstances> instances, std::string name)
      : instances_(std::move(instances)), name_(std::move(name)) {
    if (const auto there = instances_.lock()) {
      const std::lock_guard lock(there->mutex_);
      ++there->held_[name_];
    }
  }
  ~Held() {
    const auto there = instances_.lock();
    if (!there) return;
    const std::lock_guard lock(there->mutex_);
    if (const auto it = there->held_.find(name_); it != there->held_.end() && --it->second == 0)
      there->held_.erase(it);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  const std::weak_ptr<KubeInstances> instances_;
  const std::string name_;
};

Task<Result<RunningInstance>> KubeInstances::begin_instance(WantedInstance wanted) {
  const SteadyTime deadline = steady_clock::now() + parts_.options.start_timeout;
  std::size_t bytes = 0;
  for (const auto& [name, value] : wanted.env) bytes += name.size() + value.size();
  if (bytes > kMaxSecret) co_return not_started("the environment is larger than a Secret may be");
  if (!co_await listed_->wait(std::min<SteadyTime>(deadline, steady_clock::now() + kApiPatience))) {
    const std::lock_guard lock(mutex_);
    co_return not_started(trouble_.empty() ? "the API does not answer" : trouble_);
  }
  InstanceSpec spec;
  spec.key = std::move(wanted.key);
  spec.target = std::move(wanted.target);
  spec.user_id = std::move(wanted.user_id);
  spec.env = std::move(wanted.env);
  auto claimed = co_await claim(spec, deadline);
  if (!claimed) co_return as_upstream(claimed.error());
  const std::string name = instance_name(spec), uid = text_at(*claimed, {"metadata", "uid"});
  RunningInstance out;
  out.name = name;
  out.url = service_url(spec, parts_.options);
  out.held = std::make_shared<Held>(weak_from_this(), name);
  Status status;
  const SteadyTime soon = std::min<SteadyTime>(deadline, steady_clock::now() + kApiPatience);
  if (!spec.env.empty()) {
    const Json secret = secret_object(spec, parts_.options, uid);
    auto applied = co_await apply(collection("api/v1", "secrets"), secret, soon);
    if (!applied) status = applied.error();
  }
  if (status) {
    const Json service = service_object(spec, parts_.options, uid);
    auto applied = co_await apply(collection("api/v1", "services"), service, soon);
    if (!applied) status = applied.error();
  }
  if (status) status = co_await wait_ready(spec, *claimed, deadline);
  if (!status) {
    const Error cause = as_upstream(status.error());
    const Status removed = co_await remove(name, uid);
    if (!removed)
      log(LogLevel::warn, "an instance that did not start could not be removed",
          {{"name", name}, {"cause", removed.error().message}});
    co_return cause;
  }
  co_return out;
}

/// What make_room() has counted it as stands until the API's answer does.
struct KubeInstances::Making {
  KubeInstances& instances;
  const std::string& name;
  ~Making() {
    const std::lock_guard lock(instances.mutex_);
    instances.making_.erase(name);
  }
};

Task<Result<Json>> KubeInstances::claim(InstanceSpec& spec, SteadyTime deadline) {
  for (const PodInstance& record : records())
    if (record.key == spec.key)
      spec.generation = std::max(spec.generation, record.generation + (record.retired() ? 1 : 0));
  const std::string deployments = collection("apis/apps/v1", "deployments");
  const SteadyTime soon = std::min<SteadyTime>(deadline, steady_clock::now() + kApiPatience);
  for (int tries = 0; tries < kMaxGenerations; ++tries, ++spec.generation) {
    const std::string name = instance_name(spec);
    const Making making{*this, name};
    KubeRequest get;
    get.path = deployments + "/" + name;
    auto found = co_await client_->call(std::move(get), soon);
    if (!found && found.error().code != ErrorCode::not_found) co_return found.error();
    if (found) {
      const auto record = read_instance(*found);
      // Never used, never written to: it was made for other values, or by somebody else.
      if (!record || record->key != spec.key)
        co_return not_started("a Deployment of the name " + name + " belongs to something else");
      see(*found);
      if (record->retired()) continue;
    } else {
      gone(name);
      auto room = co_await make_room(spec, soon);
      if (!room) co_return room.error();
    }
    const Json wanted = deployment_object(spec, parts_.options, parts_.clock->now());
    auto applied = co_await apply(deployments, wanted, soon);
    if (!applied) co_return applied.error();
    const auto record = read_instance(*applied);
    if (!record) co_return not_started("the API did not keep the marks of the gateway");
    see(*applied);
    // Writing its last use is what keeps others from retiring it: who came first shows in the answer.
    if (!record->retired()) co_return std::move(*applied);
  }
  co_return not_started("its instances are retired as soon as they are made");
}

Task<Status> KubeInstances::make_room(const InstanceSpec& spec, SteadyTime deadline) {
  const std::string own = instance_name(spec);
  for (;;) {
    std::vector<PodInstance> live;  // that would make room
    {
      const std::lock_guard lock(mutex_);
      // What is being made counts before the API has it, or calls of one moment would pass together.
      std::size_t all = 0, theirs = 0;
      const auto count = [&](const std::string& user_id) {
        ++all;
        if (user_id == spec.user_id) ++theirs;
      };
      for (const auto& [name, user_id] : making_)
        if (name != own) count(user_id);
      for (const auto& [name, known] : known_) {
        if (known.record.retired() || name == own || making_.contains(name)) continue;
        count(known.record.user_id);
        live.push_back(known.record);
      }
      const bool share = !spec.user_id.empty() && theirs >= parts_.options.max_per_user;
      if (!share && all < parts_.options.max_instances) {
        making_.emplace(own, spec.user_id);
        co_return Status();
      }
      if (share) std::erase_if(live, [&](const PodInstance& one) { return one.user_id != spec.user_id; });
    }
    const auto in_use = uses();
    const Time now = parts_.clock->now();
    std::erase_if(live, [&](const PodInstance& record) {
      const auto use = in_use.find(record.name);
      return may_be_in_use(record, rules_, now) || (use != in_use.end() && use->second.in_flight > 0);
    });
    const Error full(ErrorCode::resource_exhausted, "instance_limit", "Too many instances are running");
    if (live.empty() || steady_clock::now() >= deadline) co_return full;
    const auto oldest = std::min_element(
        live.begin(), live.end(), [](const auto& a, const auto& b) { return a.last_used < b.last_used; });
    const PodInstance victim = *oldest;
    const Status marked = co_await mark_retired(victim, "idle", true);
    if (marked) continue;
    // Used, changed or removed in this moment: look again, at what the API has.
    if (marked.error().code == ErrorCode::not_found) continue;
    if (marked.error().code != ErrorCode::conflict) co_return marked.error();
    KubeRequest get;
    get.path = collection("apis/apps/v1", "deployments") + "/" + victim.name;
    auto found = co_await client_->call(std::move(get), deadline);
    if (found) see(*found);
  }
}

Task<Status> KubeInstances::wait_ready(const InstanceSpec& spec, const Json& deployment,
                                       SteadyTime deadline) {
  const std::string name = instance_name(spec), uid = text_at(deployment, {"metadata", "uid"});
  const auto pods = std::make_shared<Pods>();
  const auto stop = std::make_shared<WatchStop>();
  const auto update = [pods](const std::function<void()>& change) {
    std::shared_ptr<AsyncEvent> changed;
    {
      const std::lock_guard lock(pods->mutex);
      change();
      changed = std::exchange(pods->changed, std::make_shared<AsyncEvent>());
    }
    changed->set();
  };
  KubeClient::WatchHandler handler;
  handler.on_list = [pods, update](std::vector<Json> all, SteadyTime) {
    update([&] {
      pods->by_name.clear();
      for (Json& pod : all) {
        // Named first: an assignment takes its right side before it looks at its left.
        const std::string pod_name = text_at(pod, {"metadata", "name"});
        pods->by_name[pod_name] = std::move(pod);
      }
    });
  };
  handler.on_event = [pods, update](KubeEvent event) {
    update([&] {
      const std::string pod = text_at(event.object, {"metadata", "name"});
      if (event.type == KubeEvent::Type::deleted)
        pods->by_name.erase(pod);
      else
        pods->by_name[pod] = std::move(event.object);
    });
  };
  Loop::current()->spawn(KubeClient::watch(client_, collection("api/v1", "pods"),
                                           std::string(kube::kInstanceLabel) + "=" + name, handler, stop));
  struct Stop {
    std::shared_ptr<WatchStop> watch;
    ~Stop() { watch->stop(); }
  } const at_end{stop};
  StartState state;
  for (;;) {
    const auto now_known = known(name);
    if (!now_known || now_known->record.uid != uid || now_known->record.retired())
      co_return not_started("it was removed while it started");
    std::shared_ptr<AsyncEvent> changed;
    {
      const std::lock_guard lock(pods->mutex);
      std::vector<Json> all;
      all.reserve(pods->by_name.size());
      for (const auto& [pod, object] : pods->by_name) all.push_back(object);
      state = start_state(now_known->object, all);
      changed = pods->changed;
    }
    if (state.phase == StartState::Phase::ready) co_return Status();
    if (state.phase == StartState::Phase::failed) co_return not_started(state.cause);
    const SteadyTime now = steady_clock::now();
    if (now >= deadline)
      co_return not_started("it was not ready within " +
                            std::to_string(parts_.options.start_timeout.count()) + " s: " + state.cause);
    // The Deployment's own state is looked at once a second.
    (void)co_await changed->wait(std::min<SteadyTime>(deadline, now + seconds(1)));
  }
}

Task<Result<Json>> KubeInstances::apply(const std::string& collection, const Json& object,
                                        SteadyTime deadline) {
  KubeRequest request;
  request.method = "PATCH";
  request.path = collection + "/" + text_at(object, {"metadata", "name"}) +
                 "?fieldManager=" + kube::kFieldManager + "&force=true";
  request.content_type = "application/apply-patch+yaml";  // JSON is YAML
  request.body = dump_json(object);
  // What is applied wins over others' fields: a conflict is a write of the same moment, such as another
  // replica's that makes the same object.
  for (int tries = 1;; ++tries) {
    auto applied = co_await client_->call(request, deadline);
    if (applied || applied.error().code != ErrorCode::conflict || tries == kMaxConflicts ||
        steady_clock::now() >= deadline)
      co_return applied;
    co_await sleep_for(kAfterConflict * tries);
  }
}

// --- ending -----------------------------------------------------------------------------------------------

Task<Status> KubeInstances::mark_retired(const PodInstance& record, const char* because,
                                         bool only_unchanged) {
  Json metadata = {
      {"uid", record.uid},
      {"annotations", {{kube::kRetiredAt, format_time(parts_.clock->now())}, {kube::kRetiredWhy, because}}}};
  if (only_unchanged) metadata["resourceVersion"] = record.resource_version;
  KubeRequest request;
  request.method = "PATCH";
  request.path = collection("apis/apps/v1", "deployments") + "/" + record.name +
                 "?fieldManager=" + kube::kFieldManager + "-retire";
  request.content_type = "application/merge-patch+json";
  request.body = dump_json(Json{{"metadata", metadata}});
  const SteadyTime deadline = steady_clock::now() + kApiPatience;
  auto patched = co_await client_->call(request, deadline);
  // Another object of that name by now (409, or 422 since a uid cannot be changed), or a write of the same
  // moment?
  const auto met = [](const Error& error) {
    return error.code == ErrorCode::conflict || error.code == ErrorCode::invalid_argument;
  };
  for (int tries = 1; !patched && met(patched.error()); ++tries) {
    if (only_unchanged && patched.error().code == ErrorCode::conflict) break;
    KubeRequest get;
    get.path = collection("apis/apps/v1", "deployments") + "/" + record.name;
    auto found = co_await client_->call(std::move(get), deadline);
    if (!found) co_return found.error();
    see(*found);
    if (text_at(*found, {"metadata", "uid"}) != record.uid)
      co_return Error(ErrorCode::conflict, "kubernetes_api", "Another instance has taken its place");
    if (only_unchanged || tries == kMaxConflicts) break;
    co_await sleep_for(kAfterConflict * tries);
    patched = co_await client_->call(request, deadline);
  }
  if (!patched && patched.error().code == ErrorCode::not_found) gone(record.name, record.uid);
  if (!patched) co_return patched.error();
  log(LogLevel::info, "an instance is retired", {{"name", record.name}, {"because", because}});
  see(*patched);
  co_return Status();
}

Task<Status> KubeInstances::remove(const std::string& name, const std::string& uid) {
  // Pods first: as long as one is there, so is the Deployment, and the next instance takes another name.
  // Their Service would choose among the pods of both.
  KubeRequest request;
  request.method = "DELETE";
  request.path = collection("apis/apps/v1", "deployments") + "/" + name;
  request.content_type = "application/json";
  request.body = dump_json(Json{{"apiVersion", "v1"},
                                {"kind", "DeleteOptions"},
                                {"propagationPolicy", "Foreground"},
                                {"preconditions", {{"uid", uid}}}});
  auto removed = co_await client_->call(std::move(request), steady_clock::now() + kApiPatience);
  if (removed) see(*removed);  // on its way out
  if (!removed && removed.error().code == ErrorCode::not_found) gone(name, uid);
  if (!removed && removed.error().code != ErrorCode::not_found && removed.error().code != ErrorCode::conflict)
    co_return removed.error();
  co_return Status();
}

void KubeInstances::retire(const std::string& name) {
  Loop& loop = parts_.runtime->impl().any_loop();
  loop.post([&loop, self = shared_from_this(), name] { loop.spawn(run_retire(self, name)); });
}

Task<void> KubeInstances::run_retire(std::shared_ptr<KubeInstances> self, std::string name) {
  const auto found = self->known(name);
  if (!found || found->record.retired()) co_return;
  const Status marked = co_await self->mark_retired(found->record, "changed", false);
  // The collector comes to it when nobody uses it.
  if (!marked && marked.error().code != ErrorCode::not_found && marked.error().code != ErrorCode::conflict)
    self->log(LogLevel::warn, "an instance could not be retired",
              {{"name", name}, {"cause", marked.error().message}});
}

Task<Result<int>> KubeInstances::restart(std::string target_id) {
  const auto kept = shared_from_this();
  if (!co_await listed_->wait(steady_clock::now() + kApiPatience)) {
    const std::lock_guard lock(mutex_);
    co_return not_started(trouble_.empty() ? "the API does not answer" : trouble_);
  }
  int count = 0;
  for (const PodInstance& record : records()) {
    if (record.target_id != target_id || record.retired()) continue;
    const Status marked = co_await mark_retired(record, "restart", false);
    if (marked)
      ++count;
    else if (marked.error().code != ErrorCode::not_found && marked.error().code != ErrorCode::conflict)
      co_return as_upstream(marked.error());
  }
  co_return count;
}

// --- what is done now and then ----------------------------------------------------------------------------

Task<Status> KubeInstances::note_use(const PodInstance& record, Time at) {
  KubeRequest request;
  request.method = "PATCH";
  request.path =
      collection("apis/apps/v1", "deployments") + "/" + record.name + "?fieldManager=" + kube::kFieldManager;
  request.content_type = "application/merge-patch+json";
  request.body = dump_json(
      Json{{"metadata", {{"uid", record.uid}, {"annotations", {{kube::kLastUsed, format_time(at)}}}}}});
  auto patched = co_await client_->call(std::move(request), steady_clock::now() + seconds(10));
  if (!patched) co_return patched.error();
  see(*patched);
  co_return Status();
}

Task<void> KubeInstances::note_uses() {
  const auto in_use = uses();
  const auto moment = steady_clock::now();
  const Time now = parts_.clock->now();
  for (const auto& [name, use] : in_use) {
    const auto found = known(name);
    if (!found || found->record.deleting) continue;
    const auto ago = use.in_flight > 0 ? steady_clock::duration::zero() : moment - use.idle_since;
    const Time used = now - std::chrono::duration_cast<Duration>(ago);
    {
      const std::lock_guard lock(mutex_);
      const auto noted = noted_.find(name);
      // The same use again: the two clocks are not read in one moment.
      if (used <= found->record.last_used + milliseconds(50) ||
          (noted != noted_.end() && used <= noted->second + milliseconds(50)))
        continue;
    }
    const Status status = co_await note_use(found->record, used);
    if (status) {
      const std::lock_guard lock(mutex_);
      noted_[name] = used;
    } else if (status.error().code == ErrorCode::not_found) {
      gone(name, found->record.uid);
    } else if (status.error().code == ErrorCode::unavailable) {
      co_return;  // with the next beat
    }
  }
}

Task<void> KubeInstances::beat(std::weak_ptr<KubeInstances> weak) {
  SteadyTime next{};
  for (;;) {
    co_await sleep_for(kNap);
    const auto self = weak.lock();
    if (!self || self->watching_->stopped()) co_return;
    if (steady_clock::now() < next) continue;
    next = steady_clock::now() + self->rules_.beat;
    co_await self->note_uses();
  }
}

Task<bool> KubeInstances::lead(Election& election) {
  const std::string leases = collection("apis/coordination.k8s.io/v1", "leases");
  KubeRequest get;
  get.path = leases + "/" + kLease;
  auto seen = co_await client_->call(std::move(get), steady_clock::now() + seconds(10));
  if (!seen && seen.error().code != ErrorCode::not_found) co_return election.leads(parts_.clock->monotonic());
  const Duration asked_at = parts_.clock->monotonic();
  const Json none;
  Election::Step step = election.next(seen ? *seen : none, asked_at, parts_.clock->now());
  if (step.action == Election::Step::Action::wait) co_return false;
  KubeRequest put;
  const bool create = step.action == Election::Step::Action::create;
  put.method = create ? "POST" : "PUT";
  put.path = (create ? leases : leases + "/" + kLease) + "?fieldManager=" + kube::kFieldManager;
  put.content_type = "application/json";
  put.body = dump_json(step.lease);
  auto written = co_await client_->call(std::move(put), steady_clock::now() + seconds(10));
  if (written)
    election.written(asked_at);
  else if (written.error().code == ErrorCode::conflict)
    election.lost();
  co_return election.leads(parts_.clock->monotonic());
}

Task<void> KubeInstances::release(Election& election) {
  KubeRequest get;
  get.path = collection("apis/coordination.k8s.io/v1", "leases") + "/" + kLease;
  KubeRequest put = get;
  auto seen = co_await client_->call(std::move(get), steady_clock::now() + seconds(2));
  if (!seen) co_return;
  const auto free = election.release(*seen);
  if (!free) co_return;
  put.method = "PUT";
  put.path += std::string("?fieldManager=") + kube::kFieldManager;
  put.content_type = "application/json";
  put.body = dump_json(*free);
  (void)co_await client_->call(std::move(put), steady_clock::now() + seconds(2));
}

Task<void> KubeInstances::collect_once() {
  const auto in_use = uses();
  for (const PodInstance& record : records()) {
    if (watching_->stopped()) co_return;
    const auto use = in_use.find(record.name);
    const bool busy = use != in_use.end() && use->second.in_flight > 0;
    const Due what = due(record, rules_, parts_.target_version(record.target_id), parts_.clock->now());
    Status status;
    switch (what) {
      case Due::nothing:
        break;
      case Due::retire_idle:
        if (!busy) status = co_await mark_retired(record, "idle", true);
        break;
      case Due::retire_old:
        status = co_await mark_retired(record, "lifetime", false);
        break;
      case Due::retire_changed:
        status = co_await mark_retired(record, "changed", false);
        break;
      case Due::remove:
        if (busy && (record.retired_because == "idle" || record.retired_because == "lifetime")) break;
        status = co_await remove(record.name, record.uid);
        if (status) log(LogLevel::info, "an instance is removed", {{"name", record.name}});
        break;
    }
    if (status || status.error().code == ErrorCode::conflict || status.error().code == ErrorCode::not_found)
      continue;
    log(LogLevel::warn, "an instance could not be collected",
        {{"name", record.name}, {"cause", status.error().message}});
    if (status.error().code == ErrorCode::unavailable) co_return;
  }
}

Task<void> KubeInstances::collect(std::weak_ptr<KubeInstances> weak) {
  SteadyTime next{};
  std::unique_ptr<Election> election;
  for (;;) {
    co_await sleep_for(kNap);
    const auto self = weak.lock();
    if (!self) co_return;
    if (!election) {
      unsigned char bytes[8];
      self->parts_.random->fill(bytes, sizeof bytes);
      election = std::make_unique<Election>(
          host_name() + "-" + to_hex({reinterpret_cast<const char*>(bytes), sizeof bytes}), kLease,
          self->parts_.options.name_space,
          std::max<seconds>(seconds(15), 3 * self->parts_.options.gc_interval));
    }
    if (self->watching_->stopped()) {
      if (election->leads(self->parts_.clock->monotonic())) co_await self->release(*election);
      if (self->farewell_.load()) self->parts_.farewells->fetch_sub(1);
      co_return;
    }
    if (steady_clock::now() < next) continue;
    next = steady_clock::now() + self->parts_.options.gc_interval;
    const bool leads = co_await self->lead(*election);
    self->leading_.store(leads);
    if (leads) co_await self->collect_once();
  }
}

}  // namespace mcpgw::detail
