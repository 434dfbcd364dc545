// Replicas: what one does and the others must do, too, since it concerns what each of them runs.
#include <condition_variable>

#include "gateway/connection_pool.hpp"
#include "gateway/replicas.hpp"
#include "json/raw.hpp"
#include "runtime/waiter.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

/// Keeps the answer to one order.
class Collected final : public Responder {
 public:
  void send(HttpResponse response) override {
    const std::lock_guard lock(mutex_);
    response_ = std::move(response);
  }
  std::shared_ptr<ResponseStream> start(HttpResponse) override { return nullptr; }
  void on_disconnect(std::function<void()>) override {}
  std::optional<std::int64_t> count() const {
    const std::lock_guard lock(mutex_);
    if (!response_ || response_->status != 200) return std::nullopt;
    return raw::int_value(response_->body);
  }

 private:
  mutable std::mutex mutex_;
  std::optional<HttpResponse> response_;
};

struct Gathered {
  explicit Gathered(Loop& loop) : all(std::make_shared<Waiter<bool>>(loop)) {}
  const std::shared_ptr<Waiter<bool>> all;
  std::mutex mutex;  // guards what follows
  std::size_t open = 0;
  std::vector<Replicas::Answer> answers;
};

struct Tally {
  std::mutex mutex;
  std::condition_variable changed;
  std::size_t open = 0;
  int sum = 0;
};

}  // namespace

Task<void> Replicas::order(std::string id, std::string address, std::string what, std::string argument,
                           std::shared_ptr<Responder> responder) {
  const auto self = shared_from_this();
  HttpRequest order;
  order.method = kOrderMethod;
  order.target = '/' + what;
  order.body = std::move(argument);
  (void)co_await send(std::move(id), std::move(address), order, std::move(responder));
}

Task<std::optional<std::int64_t>> Replicas::ask(std::string id, std::string address, std::string what,
                                                std::string argument) {
  const auto answer = std::make_shared<Collected>();
  co_await order(std::move(id), std::move(address), std::move(what), std::move(argument), answer);
  co_return answer->count();
}

Task<std::vector<Replicas::Answer>> Replicas::ask_all(std::string what, std::string argument) {
  const auto others_now = others();
  if (!on() || others_now.empty()) co_return std::vector<Answer>();
  Loop& loop = *Loop::current();
  const auto gathered = std::make_shared<Gathered>(loop);
  gathered->open = others_now.size();
  for (const auto& [id, address] : others_now)
    loop.spawn([](auto self, auto to, auto where, auto asked, auto about, auto into) -> Task<void> {
      const auto value = co_await self->ask(to, where, asked, about);
      const std::lock_guard lock(into->mutex);
      if (value) into->answers.push_back({to, where, *value});
      if (--into->open == 0) into->all->set(true);
    }(shared_from_this(), id, address, what, argument, gathered));
  (void)co_await gathered->all->wait(steady_clock::now() + kAnswered);
  const std::lock_guard lock(gathered->mutex);
  co_return gathered->answers;
}

int Replicas::order_all(const std::string& what, const std::string& argument,
                        std::chrono::milliseconds wait) {
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
        into->sum += static_cast<int>(count.value_or(0));
        --into->open;
        into->changed.notify_all();
      }(self, id, address, order, tally));
    });
  }
  std::unique_lock lock(tally->mutex);
  tally->changed.wait_for(lock, wait, [&] { return tally->open == 0; });
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
