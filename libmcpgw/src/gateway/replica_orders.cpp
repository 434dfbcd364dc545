// Replicas: what one does and the others must do, too, since it concerns what each of them runs.
#include <condition_variable>

#include "gateway/connection_pool.hpp"
#include "gateway/replicas.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

/// An order is carried out in memory: whoever has not done so by then is gone, and what it ran with it.
constexpr auto kObeyed = std::chrono::seconds(10);

/// Keeps the answer to one order.
class Collected final : public Responder {
 public:
  void send(HttpResponse response) override {
    const std::lock_guard lock(mutex_);
    response_ = std::move(response);
  }
  std::shared_ptr<ResponseStream> start(HttpResponse) override { return nullptr; }
  void on_disconnect(std::function<void()>) override {}
  std::optional<int> count() const {
    const std::lock_guard lock(mutex_);
    if (!response_ || response_->status != 200) return std::nullopt;
    const auto count = raw::int_value(response_->body);
    return count ? std::optional(static_cast<int>(*count)) : std::nullopt;
  }

 private:
  mutable std::mutex mutex_;
  std::optional<HttpResponse> response_;
};

struct Tally {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t open = 0;
  int sum = 0;
};

}  // namespace

int Replicas::order_all(const std::string& what, const std::string& argument) {
  const auto core = core_.lock();
  if (!core || !on()) return 0;
  const auto others = peers_->others(id_);
  const auto tally = std::make_shared<Tally>();
  tally->open = others.size();
  HttpRequest order;
  order.method = kOrderMethod;
  order.target = '/' + what;
  order.body = argument;
  for (const auto& [id, address] : others) {
    Loop& loop = core->runtime->impl().any_loop();
    loop.post([&loop, self = shared_from_this(), id = id, address = address, order, tally] {
      loop.spawn([](auto replicas, auto to, auto where, auto request, auto into) -> Task<void> {
        const auto answer = std::make_shared<Collected>();
        const Outcome outcome = co_await replicas->send(to, where, request, answer);
        const auto count = answer->count();
        if (outcome != Outcome::answered || !count)
          if (const auto alive = replicas->core_.lock())
            alive->log(LogLevel::warn, "replicas", "a replica could not be told",
                       {{"replica", to}, {"what", request.target.substr(1)}});
        const std::lock_guard lock(into->mutex);
        into->sum += count.value_or(0);
        --into->open;
        into->changed.notify_all();
      }(self, id, address, order, tally));
    });
  }
  std::unique_lock lock(tally->mutex);
  tally->changed.wait_for(lock, kObeyed, [&] { return tally->open == 0; });
  return tally->sum;
}

std::optional<int> obey(const GatewayCore& core, const std::string& what, const std::string& argument) {
  if (what == "restart-instances") return core.pool->restart(argument);
  if (what == "close-user") {
    core.pool->close_user(argument);
    return 0;
  }
  return std::nullopt;  // of a newer version
}

}  // namespace mcpgw::detail
