#include "gateway/replica_places.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "gateway/connection_pool.hpp"
#include "gateway/replicas.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Whoever could not be reached is left out for so long: no call waits for a connection to the same one
/// again.
constexpr auto kLeftOut = std::chrono::seconds(3);
/// What asking takes beyond waiting for one's turn.
constexpr auto kOnTheWay = std::chrono::seconds(3);
constexpr std::int64_t kMaxPlaces = 10000, kMaxWaitMs = 24LL * 3600 * 1000;

enum class Answer { granted, busy, nobody };

/// Waits for the keeper's answer; what it gives is held until release().
class RemotePlace final : public Responder {
 public:
  explicit RemotePlace(Loop& loop) : answer_(std::make_shared<Waiter<Answer>>(loop)) {}

  const std::shared_ptr<Waiter<Answer>>& answer() const { return answer_; }
  void release() {
    std::function<void()> end;
    {
      const std::lock_guard lock(mutex_);
      released_ = true;
      end = std::exchange(end_, nullptr);
    }
    if (end) end();
  }

  void send(HttpResponse response) override {
    answer_->set(response.status == 429 ? Answer::busy : Answer::nobody);
  }
  std::shared_ptr<ResponseStream> start(HttpResponse) override {
    answer_->set(Answer::granted);
    return std::make_shared<Silent>();
  }
  void on_disconnect(std::function<void()> callback) override {
    {
      const std::lock_guard lock(mutex_);
      if (!released_) {
        end_ = std::move(callback);
        return;
      }
    }
    if (callback) callback();
  }

 private:
  class Silent final : public ResponseStream {
   public:
    bool write(std::string) override { return true; }
    void close() override {}
  };
  const std::shared_ptr<Waiter<Answer>> answer_;
  std::mutex mutex_;  // guards what follows
  std::function<void()> end_;
  bool released_ = false;
};

/// One line each; the user comes last, since ids of users from outside may hold anything.
struct Wanted {
  std::string target_id, user_id;
  std::int64_t max = 0, wait_ms = 0;
};
std::string encode(const Wanted& wanted) {
  return wanted.target_id + '\n' + std::to_string(wanted.max) + '\n' + std::to_string(wanted.wait_ms) + '\n' +
         wanted.user_id;
}
std::optional<Wanted> decode(std::string_view text) {
  Wanted out;
  std::string_view parts[3];
  for (std::string_view& part : parts) {
    const auto end = text.find('\n');
    if (end == std::string_view::npos) return std::nullopt;
    part = text.substr(0, end);
    text.remove_prefix(end + 1);
  }
  const auto max = raw::int_value(parts[1]), wait = raw::int_value(parts[2]);
  if (!max || *max < 1 || *max > kMaxPlaces || !wait || *wait < 0 || *wait > kMaxWaitMs) return std::nullopt;
  return Wanted{std::string(parts[0]), std::string(text), *max, *wait};
}

ReplicaPlaces::Place own_place(ConcurrencyLimit::Slot slot) {
  return slot ? std::make_shared<ConcurrencyLimit::Slot>(std::move(slot)) : nullptr;
}

}  // namespace

std::vector<std::string> ReplicaPlaces::keepers(const std::string& target_id,
                                                std::vector<std::string> replicas) {
  // The highest digest: when one comes or goes, only the targets that it keeps change hands.
  std::vector<std::pair<std::string, std::string>> ranked;
  for (std::string& id : replicas) {
    std::string rank = sha256(target_id + '/' + id);
    ranked.emplace_back(std::move(rank), std::move(id));
  }
  std::sort(ranked.rbegin(), ranked.rend());
  std::vector<std::string> out;
  for (auto& [rank, id] : ranked) out.push_back(std::move(id));
  return out;
}

Task<ReplicaPlaces::Place> ReplicaPlaces::enter(std::string target_id, std::string user_id, std::size_t max,
                                                SteadyTime deadline) {
  const auto core = core_.lock();
  if (!core) co_return nullptr;
  const auto limit = core->pool->concurrency(target_id);
  Replicas& replicas = *core->replicas;
  std::map<std::string, std::string> others;
  if (replicas.on())
    for (auto& [id, address] : replicas.others()) others.emplace(id, address);
  if (others.empty()) {
    auto slot = co_await limit->enter(std::move(user_id), max, deadline);
    co_return own_place(std::move(slot));
  }
  std::vector<std::string> ids{replicas.id()};
  for (const auto& [id, address] : others) ids.push_back(id);
  const std::vector<std::string> order = keepers(target_id, std::move(ids));
  for (const std::string& keeper : order) {
    if (keeper == replicas.id()) {
      auto slot = co_await limit->enter(std::move(user_id), max, deadline);
      co_return own_place(std::move(slot));
    }
    if (silent(keeper)) continue;
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - steady_clock::now()).count();
    const std::string wanted =
        encode({target_id, user_id, static_cast<std::int64_t>(max), std::max<std::int64_t>(left, 0)});
    Loop& loop = *Loop::current();
    const auto place = std::make_shared<RemotePlace>(loop);
    loop.spawn([](auto core_kept, auto id, auto address, auto text, auto responder) -> Task<void> {
      // What it was not answered is nobody's.
      (void)co_await core_kept->replicas->order(id, address, kPlaceOrder, text, responder);
      responder->answer()->set(Answer::nobody);
    }(core, keeper, others[keeper], wanted, place));
    const auto answer = co_await place->answer()->wait(deadline + kOnTheWay);
    if (answer == Answer::granted) co_return Place(place.get(), [place](void*) { place->release(); });
    place->release();
    if (answer != Answer::nobody) co_return nullptr;
    found_silent(keeper);
  }
  co_return nullptr;  // not reached: this replica is among them
}

void ReplicaPlaces::give(const std::string& from, const std::string& order,
                         const std::shared_ptr<Responder>& responder) {
  const auto core = core_.lock();
  auto wanted = decode(order);
  if (!core || !wanted) {
    HttpResponse refusal;
    refusal.status = 400;
    return responder->send(std::move(refusal));
  }
  Loop& loop = core->runtime->impl().any_loop();
  loop.post([&loop, self = shared_from_this(), from, one = std::move(*wanted), responder] {
    loop.spawn(serve(self, from, one.target_id, one.user_id, static_cast<std::size_t>(one.max),
                     milliseconds(one.wait_ms), responder));
  });
}

Task<void> ReplicaPlaces::serve(std::shared_ptr<ReplicaPlaces> self, std::string from, std::string target_id,
                                std::string user_id, std::size_t max, milliseconds wait,
                                std::shared_ptr<Responder> responder) {
  std::shared_ptr<ConcurrencyLimit> limit;
  if (const auto core = self->core_.lock()) limit = core->pool->concurrency(target_id);
  if (!limit) co_return;
  auto slot = co_await limit->enter(std::move(user_id), max, steady_clock::now() + wait);
  if (!slot) {
    HttpResponse busy;
    busy.status = 429;
    co_return responder->send(std::move(busy));
  }
  const auto stream = responder->start(HttpResponse());
  if (!stream) co_return;  // the other has gone meanwhile
  std::uint64_t number;
  {
    const std::lock_guard lock(self->mutex_);
    if (self->stopped_) co_return;
    number = self->next_++;
    self->held_.emplace(number, Held{std::move(from), std::move(slot), stream});
  }
  // After it is in use: whoever has gone already is noticed.
  responder->on_disconnect([weak = std::weak_ptr(self), number] {
    if (const auto alive = weak.lock()) alive->drop(number);
  });
}

void ReplicaPlaces::drop(std::uint64_t number) {
  Held ended;  // outlives the lock: whoever is next is told
  const std::lock_guard lock(mutex_);
  const auto it = held_.find(number);
  if (it == held_.end()) return;
  ended = std::move(it->second);
  held_.erase(it);
}

void ReplicaPlaces::take_back(const std::set<std::string>& living) {
  std::vector<Held> ended;
  const std::lock_guard lock(mutex_);
  for (auto it = held_.begin(); it != held_.end();) {
    if (living.contains(it->second.from)) {
      ++it;
      continue;
    }
    ended.push_back(std::move(it->second));
    it = held_.erase(it);
  }
}

void ReplicaPlaces::stop() {
  std::map<std::uint64_t, Held> ended;
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  ended.swap(held_);
}

bool ReplicaPlaces::silent(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto it = silent_.find(id);
  return it != silent_.end() && steady_clock::now() < it->second;
}

void ReplicaPlaces::found_silent(const std::string& id) {
  const auto now = steady_clock::now();
  const std::lock_guard lock(mutex_);
  std::erase_if(silent_, [&](const auto& one) { return one.second <= now; });
  silent_[id] = now + kLeftOut;
}

}  // namespace mcpgw::detail
