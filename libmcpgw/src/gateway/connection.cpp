#include "base/moment.hpp"
#include "gateway/connection_pool.hpp"
#include "gateway/metrics.hpp"
#include "gateway/session.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kMaxPages = 1000;
constexpr std::size_t kMaxItems = 100000;
/// How long a list is trusted that the server does not announce changes of.
constexpr auto kUnannouncedTtl = std::chrono::seconds(60);
/// A list this young is not asked for again.
constexpr auto kMinAge = std::chrono::milliseconds(500);
/// Of all pages together: a slow server's list may take longer than whoever asks for it waits.
constexpr int kListTimeouts = 6;
constexpr auto kFirstListRetry = std::chrono::milliseconds(1000);

std::int64_t ticks(SteadyTime time) { return time.time_since_epoch().count(); }

/// A tool without execution.taskSupport.
void forbid_tasks(Item& item) {
  if (item.json.find("\"taskSupport\"") == std::string::npos) return;
  const std::string_view execution = raw::find(item.json, "execution");
  if (raw::find(execution, "taskSupport").empty()) return;
  item.json = raw::with_member(item.json, "execution", raw::without_member(execution, "taskSupport"));
}

std::size_t index(ListKind kind) { return static_cast<std::size_t>(kind); }

}  // namespace

UpstreamConnection::UpstreamConnection(std::shared_ptr<GatewayCore> core,
                                       std::shared_ptr<const Binding> binding)
    : core_(std::move(core)),
      binding_(std::move(binding)),
      created_(steady_clock::now()),
      idle_since_(ticks(created_)) {}

UpstreamEvents UpstreamConnection::events() {
  UpstreamEvents out;
  const std::weak_ptr<UpstreamConnection> weak = weak_from_this();
  out.on_message = [weak](ServerMessage message) {
    if (auto self = weak.lock()) self->deliver(message);
  };
  out.on_lost = [weak](Error error) {
    if (auto self = weak.lock()) self->on_lost(error);
  };
  out.on_log = [weak](LogLevel level, std::string text) {
    auto self = weak.lock();
    if (!self) return;
    text = mask_secrets(std::move(text), *self->binding_);
    if (level >= LogLevel::warn) self->core_->pool->note(self->target(), text);
    self->core_->log(level, "upstream", std::move(text), {{"target", self->target().name}});
  };
  return out;
}

Task<Result<std::shared_ptr<const Listing>>> UpstreamConnection::listing(ListKind kind, SteadyTime deadline,
                                                                         bool fresh) {
  if (!upstream_->facts().offers(list_capability(kind))) {
    static const auto empty = std::make_shared<const Listing>();
    co_return empty;
  }
  bool waited = false;
  for (;;) {
    std::shared_ptr<AsyncEvent> loading;
    {
      const std::lock_guard lock(mutex_);
      Cache& cache = caches_[index(kind)];
      if (cache.listing) {
        const auto age = steady_clock::now() - cache.listing->fetched;
        const bool kept = cache.listing->announced && !cache.listing->endless;
        if (waited || kept || age < (fresh ? steady_clock::duration(kMinAge) : kUnannouncedTtl))
          co_return cache.listing;
      } else if (waited && cache.error) {
        co_return *cache.error;
      }
      loading = start_loading_locked(kind);
    }
    if (!co_await loading->wait(deadline))
      co_return Error(ErrorCode::deadline_exceeded, "upstream_timeout",
                      "The server did not list its items in time");
    waited = true;
  }
}

std::shared_ptr<AsyncEvent> UpstreamConnection::start_loading_locked(ListKind kind) {
  Cache& cache = caches_[index(kind)];
  if (cache.loading) return cache.loading;
  cache.loading = std::make_shared<AsyncEvent>();
  // Detached: others wait for it, and one caller's deadline must not end it for them. Posted: it takes the
  // lock.
  Loop& loop = core_->runtime->impl().any_loop();
  loop.post([&loop, self = shared_from_this(), kind, loading = cache.loading] {
    loop.spawn(keep_loaded(self, kind, loading));
  });
  return cache.loading;
}

Task<void> UpstreamConnection::keep_loaded(std::shared_ptr<UpstreamConnection> self, ListKind kind,
                                           std::shared_ptr<AsyncEvent> loaded) {
  std::uint64_t generation;
  {
    const std::lock_guard lock(self->mutex_);
    generation = self->caches_[index(kind)].generation;
  }
  auto result = co_await self->load(kind);
  const auto now = steady_clock::now();
  bool recovered = false;
  {
    const std::lock_guard lock(self->mutex_);
    Cache& cache = self->caches_[index(kind)];
    cache.loading = nullptr;
    cache.error = result ? std::nullopt : std::optional<Error>(result.error());
    if (result) {
      recovered = std::exchange(cache.failures, 0) > 0;
      if (generation == cache.generation) cache.listing = *result;
    } else {
      cache.retry_at = now + kFirstListRetry * (1 << std::min(cache.failures++, 6));
    }
  }
  loaded->set();
  if (!self->usable()) co_return;  // that is another fault
  std::optional<std::string> fault;
  if (!result)
    fault = std::string(list_method(kind)) + ": " + result.error().message;
  else if ((*result)->endless)
    fault = std::string(list_method(kind)) + ": the list does not end";
  self->core_->pool->report_list(*self, kind, std::move(fault));
  if (recovered) self->core_->sessions->schedule_announcements();
}

void UpstreamConnection::retry_lists(SteadyTime now) {
  if (!usable() || !attached()) return;
  const std::lock_guard lock(mutex_);
  for (const ListKind kind : {ListKind::tools, ListKind::resources, ListKind::templates, ListKind::prompts}) {
    const Cache& cache = caches_[index(kind)];
    if (cache.error && !cache.loading && cache.retry_at <= now) (void)start_loading_locked(kind);
  }
}

std::shared_ptr<const Listing> UpstreamConnection::known_listing(ListKind kind) const {
  const std::lock_guard lock(mutex_);
  return caches_[index(kind)].listing;
}

std::shared_ptr<const Listing> UpstreamConnection::current_listing(ListKind kind) const {
  auto known = known_listing(kind);
  if (!known || (known->announced && !known->endless)) return known;
  return steady_now() - known->fetched < kUnannouncedTtl ? known : nullptr;
}

Task<Result<std::shared_ptr<const Listing>>> UpstreamConnection::load(ListKind kind) {
  const Use use(shared_from_this());  // an edit meanwhile lets it finish
  if (!usable()) co_return Error(ErrorCode::unavailable, "upstream_closed", "The connection was closed");
  auto out = std::make_shared<Listing>();
  std::optional<std::string> cursor;
  std::set<std::string> seen;
  const auto timeout = core_->options.upstream.list_timeout;
  const SteadyTime give_up = steady_clock::now() + timeout * kListTimeouts;
  for (std::size_t page = 1;; ++page) {
    UpstreamCall call;
    call.method = list_method(kind);
    if (cursor) call.params = R"({"cursor":)" + raw::quote(*cursor) + "}";
    call.timeout = call.max_timeout = timeout;
    const std::string method = call.method;
    const Duration began = core_->clock->monotonic();
    std::optional<CircuitBreaker::Pass> pass;
    if (circuit_ && !(pass = circuit_->enter(steady_clock::now()))) co_return CircuitBreaker::refusal();
    auto answer = co_await upstream_->request(std::move(call));
    if (pass) {
      using Outcome = CircuitBreaker::Outcome;
      auto outcome = answer ? Outcome::worked : CircuitBreaker::outcome_of(answer.error());
      if (!answer && answer.error().reason == "upstream_timeout") outcome = Outcome::failed;
      judge(*pass, outcome);
    }
    core_->metrics->target(target().name)
        ->sent(method, answer && !answer->is_error, core_->clock->monotonic() - began);
    if (!answer) co_return answer.error();
    if (answer->is_error)
      co_return Error(ErrorCode::unavailable, "upstream_error", "The server did not list its items");
    if (const auto skipped = add_items(*out, kind, target().slug, answer->payload); skipped > 0)
      core_->log(LogLevel::warn, "upstream",
                 "items without a name, or with one that was listed before, were left out",
                 {{"target", target().name}, {"count", std::to_string(skipped)}});
    const auto next = raw::string_value(raw::find(answer->payload, "nextCursor"));
    if (!next) break;
    // What there is until then is served.
    if (!seen.insert(*next).second || page == kMaxPages || out->items.size() > kMaxItems ||
        steady_clock::now() > give_up) {
      out->endless = true;
      break;
    }
    cursor = *next;
  }
  // Tools that cannot be run as tasks must not say that they can: the gateway's other targets may.
  if (kind == ListKind::tools && !upstream_->facts().runs_tasks())
    for (Item& item : out->items) forbid_tasks(item);
  out->fetched = steady_clock::now();
  out->announced = upstream_->facts().offers(list_capability(kind), "listChanged");
  co_return std::shared_ptr<const Listing>(std::move(out));
}

UpstreamConnection::Use::Use(std::shared_ptr<UpstreamConnection> connection)
    : connection_(std::move(connection)) {
  // With retire(): one of the two sees the other, so that a call which then finds the connection usable is
  // not cut by its end.
  connection_->in_flight_.fetch_add(1, std::memory_order_seq_cst);
}

UpstreamConnection::Use::~Use() {
  if (!connection_) return;
  connection_->touch();
  if (connection_->in_flight_.fetch_sub(1, std::memory_order_seq_cst) != 1) return;
  if (connection_->retired_.load(std::memory_order_acquire))
    connection_->close();
  else if (connection_->outlived_.load(std::memory_order_seq_cst))
    connection_->retire(SteadyTime::max());
}

void UpstreamConnection::retire_when_idle() {
  outlived_.store(true, std::memory_order_seq_cst);
  // Who ended meanwhile has not seen that; twice does no harm.
  if (in_flight_.load(std::memory_order_seq_cst) == 0) retire(SteadyTime::max());
}

void UpstreamConnection::touch() noexcept {
  idle_since_.store(ticks(steady_now()), std::memory_order_relaxed);
}

SteadyTime UpstreamConnection::idle_since() const noexcept {
  return SteadyTime(steady_clock::duration(idle_since_.load(std::memory_order_relaxed)));
}

void UpstreamConnection::retire(SteadyTime deadline) {
  close_at_.store(ticks(deadline), std::memory_order_relaxed);
  retired_.store(true, std::memory_order_seq_cst);
  if (in_flight_.load(std::memory_order_seq_cst) == 0) close();
}

bool UpstreamConnection::overdue(SteadyTime now) const {
  return retired_.load(std::memory_order_acquire) && ticks(now) >= close_at_.load(std::memory_order_relaxed);
}

void UpstreamConnection::leave(SteadyTime deadline) {
  left_.store(true, std::memory_order_release);
  retire(deadline);
}

void UpstreamConnection::close() {
  retired_.store(true, std::memory_order_seq_cst);
  if (!upstream_) return;
  if (left_.load(std::memory_order_acquire))
    upstream_->leave();
  else
    upstream_->close();
}

}  // namespace mcpgw::detail
