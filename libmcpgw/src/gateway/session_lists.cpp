// What a client has seen of the lists, and how it learns that they have changed: one mechanism for whatever
// may have changed them (a policy, a target, a user, a server's own word, a server that is back). Something
// that may matter makes the session look; it tells the client when what the client would see differs from
// what it has seen.
#include <algorithm>
#include <functional>

#include "base/text.hpp"
#include "gateway/session.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

/// Before another look, for what happened during the last.
constexpr auto kGather = std::chrono::milliseconds(100);
/// Who is later than this holds up nobody's news: the session looks again when it is there.
constexpr auto kPatience = std::chrono::seconds(2);

/// In a SeenList: the target was there, and what it had is not known.
constexpr std::uint64_t kUnknown = ~std::uint64_t{0};

constexpr ListKind kKinds[] = {ListKind::tools, ListKind::resources, ListKind::templates, ListKind::prompts};

std::size_t index(ListKind kind) { return static_cast<std::size_t>(kind); }

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  hash ^= value + 0x9e3779b97f4a7c15ULL + (hash << 6) + (hash >> 2);
  return hash;
}

}  // namespace

void ListDigest::add(const Item& item) {
  const std::hash<std::string> hash;
  if (value_ == 0) value_ = mix(1, hash(seed_));
  value_ = mix(mix(value_, hash(item.name)), hash(item.json));
  if (value_ == 0 || value_ == kUnknown) value_ = 1;
}

void Session::remember_list(ListKind kind, SeenList seen) {
  const std::lock_guard lock(mutex_);
  seen_[index(kind)] = std::move(seen);
  ++seen_version_[index(kind)];
}

bool ListView::news_after(const ListView& before) const {
  if (before.judged_from != judged_to) return targets != before.targets;
  if (targets.size() != before.targets.size()) return true;
  constexpr std::size_t kField = sizeof(std::uint64_t);
  const std::string_view now(targets), then(before.targets);
  const std::string not_known(kField, '\0');
  for (std::size_t at = 0; at < now.size(); at += 2 * kField) {
    if (now.substr(at, kField) != then.substr(at, kField)) return true;
    const std::string_view had = then.substr(at + kField, kField);
    if (had != not_known && had != now.substr(at + kField, kField)) return true;
  }
  return false;
}

ListView Session::list_view(const Principal& principal, ListKind kind) {
  const std::hash<std::string> hash;
  ListView out;
  out.judged_from = core_->policy->generation();
  const auto add = [&out](std::uint64_t value) {
    out.targets.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  const auto seen = view(principal);
  std::map<std::string, std::shared_ptr<UpstreamConnection>> open;
  for (const auto& one : connections()) open[one->target().id] = one;
  for (const auto& target : seen->targets) {
    add(hash(target->id + (seen->prefixed(*target) ? "+" : "-") + target->slug));
    const auto it = open.find(target->id);
    const auto listing = it == open.end() ? nullptr : it->second->known_listing(kind);
    if (!listing) {
      add(0);
      continue;
    }
    std::string allowed;
    for (const Item& item : listing->items)
      allowed +=
          core_->policy->evaluate(principal, target->id, policy_type(kind), item.name).allowed() ? '1' : '0';
    add(std::max<std::uint64_t>(hash(allowed), 1));
  }
  out.judged_to = core_->policy->generation();
  return out;
}

void Session::watch_lists(const Principal& principal) {
  const auto now = view(principal);
  {
    const std::lock_guard lock(mutex_);
    for (const ListKind kind : kKinds) {
      auto& seen = seen_[index(kind)];
      if (seen) continue;
      seen.emplace();
      for (const auto& target : now->targets) seen->emplace(target->id, kUnknown);
    }
  }
  check_lists(std::chrono::milliseconds(0));
}

void Session::check_lists(std::chrono::milliseconds delay) {
  if (closed() || !has_stream()) return;  // the next stream begins with a look
  {
    const std::lock_guard lock(mutex_);
    if (checking_) {
      check_again_ = true;
      return;
    }
    checking_ = true;
  }
  Loop& loop = core_->runtime->impl().any_loop();
  loop.post([&loop, delay, weak = weak_from_this()] { loop.spawn(run_checks(weak, delay)); });
}

Task<void> Session::run_checks(std::weak_ptr<Session> weak, std::chrono::milliseconds delay) {
  for (;; delay = kGather) {
    if (delay.count() > 0) co_await sleep_for(delay);
    const auto self = weak.lock();
    if (!self) co_return;
    {
      const std::lock_guard lock(self->mutex_);
      self->check_again_ = false;
    }
    if (!self->closed()) co_await self->compare_lists();
    const std::lock_guard lock(self->mutex_);
    if (self->check_again_ && !self->closed()) continue;
    self->checking_ = false;
    co_return;
  }
}

/// One look at everything, gathered from one coroutine a target.
struct Session::Look {
  std::mutex mutex;
  /// By target of the view, then by kind; nullopt: not known now.
  std::vector<std::array<std::optional<std::uint64_t>, kListKinds>> found;
  std::size_t open = 0;
  AsyncEvent done;
};

Task<void> Session::look(std::shared_ptr<Session> self, Principal principal, std::shared_ptr<const View> view,
                         std::size_t at, SteadyTime deadline, std::shared_ptr<Look> into) {
  const auto& target = view->targets[at];
  std::array<std::optional<std::uint64_t>, kListKinds> found;
  for (const ListKind kind : kKinds) {
    auto listing = co_await self->listing(principal, target, kind, deadline, false);
    if (!listing) continue;
    ListDigest digest(*target, view->prefixed(*target));
    for (const Item& item : (*listing)->items)
      if (self->core_->policy->evaluate(principal, target->id, policy_type(kind), item.name).allowed())
        digest.add(item);
    found[index(kind)] = digest.value();
  }
  bool last;
  {
    const std::lock_guard lock(into->mutex);
    into->found[at] = found;
    last = --into->open == 0;
  }
  if (last) into->done.set();
}

Task<void> Session::compare_lists() {
  const auto self = shared_from_this();
  const auto principal = current_principal();
  if (!principal || !has_stream()) co_return;
  std::array<std::uint64_t, kListKinds> versions;
  {
    const std::lock_guard lock(mutex_);
    versions = seen_version_;
  }
  const auto seen_view = view(*principal);
  const std::size_t count = seen_view->targets.size();
  const auto into = std::make_shared<Look>();
  into->found.resize(count);
  into->open = count;
  const SteadyTime deadline =
      steady_clock::now() + std::min<steady_clock::duration>(kPatience, core_->options.upstream.list_timeout);
  for (std::size_t i = 0; i < count; ++i)
    Loop::current()->spawn(look(self, *principal, seen_view, i, deadline, into));
  if (count > 0) (void)co_await into->done.wait(deadline + std::chrono::milliseconds(100));
  decltype(into->found) found;
  {
    const std::lock_guard lock(into->mutex);
    found = into->found;
  }

  bool changed[kListKinds] = {};
  {
    const std::lock_guard lock(mutex_);
    if (!has_stream()) co_return;
    for (const ListKind kind : kKinds) {
      // Listed by the client meanwhile, from what may be newer than this.
      if (seen_version_[index(kind)] != versions[index(kind)]) {
        check_again_ = true;
        continue;
      }
      auto& seen = seen_[index(kind)];
      SeenList now;
      bool differs = false;
      for (std::size_t i = 0; i < count; ++i) {
        const std::string& id = seen_view->targets[i]->id;
        const auto& value = found[i][index(kind)];
        std::optional<std::uint64_t> before;
        if (seen)
          if (const auto it = seen->find(id); it != seen->end()) before = it->second;
        if (value) {
          differs |= before != kUnknown && *value != before.value_or(0);
          now[id] = *value;
        } else if (before) {
          now[id] = *before;  // not there now: what the client has seen of it still stands
        }
      }
      if (seen)
        for (const auto& [id, value] : *seen) differs |= value != 0 && !now.contains(id);
      changed[index(kind)] = seen && differs;
      seen = std::move(now);
    }
  }
  changed[index(ListKind::resources)] |= changed[index(ListKind::templates)];
  for (const ListKind kind : {ListKind::tools, ListKind::prompts, ListKind::resources})
    if (changed[index(kind)]) send(make_notification(list_changed(kind), {}));
}

}  // namespace mcpgw::detail
