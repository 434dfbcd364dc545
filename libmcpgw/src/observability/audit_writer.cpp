#include "observability/audit_writer.hpp"

#include <array>

#include "base/id_random.hpp"
#include "observability/audit_bounds.hpp"

namespace mcpgw::detail {
namespace {
constexpr std::size_t kBatch = 500;
/// The largest body whose memory waits for the next one.
constexpr std::size_t kKeptBody = 4096;
constexpr auto kFlushWindow = std::chrono::milliseconds(50);
constexpr auto kRetryFirst = std::chrono::milliseconds(200);
constexpr auto kRetryMax = std::chrono::milliseconds(5000);
constexpr auto kPurgeEvery = std::chrono::hours(1);
/// How long a request waits for its row to be stored.
constexpr auto kSyncPatience = std::chrono::seconds(10);
}  // namespace

AuditWriter::AuditWriter(std::shared_ptr<AuditSink> sink, AuditOptions options, std::shared_ptr<Clock> clock,
                         std::shared_ptr<Random> random, LogSink log)
    : sink_(std::move(sink)),
      options_(options),
      clock_(std::move(clock)),
      random_(std::move(random)),
      log_(std::move(log)) {
  thread_ = std::thread([this] { run(); });
}

AuditWriter::~AuditWriter() { stop(); }

bool AuditWriter::admits_locked() {
  const bool out = queue_.size() + taken_ < options_.queue_max && !(options_.sync && failing_);
  admits_.store(out, std::memory_order_relaxed);
  return out;
}

Task<bool> AuditWriter::admit(SteadyTime deadline) {
  for (;;) {
    std::shared_ptr<Waiter<bool>> waiter;
    {
      const std::lock_guard lock(mutex_);
      if (admits_locked()) co_return true;
      if (stopping_) co_return false;
      waiter = std::make_shared<Waiter<bool>>(*Loop::current());
      space_waiters_.push_back(waiter);
    }
    if (!co_await waiter->wait(deadline)) co_return false;
  }
}

void AuditWriter::enqueue_locked(const AuditRecord& record) {
  queue_.push(record);
  ++queued_;
  if (queue_.size() + taken_ >= options_.queue_max) (void)admits_locked();
}

void AuditWriter::unpack(std::vector<AuditRecord>& batch) {
  // The rows of the last batch are filled again: what they hold is not given back and taken anew.
  batch.resize(std::min(backlog_.size(), kBatch));
  std::vector<std::array<unsigned char, 10>> random(batch.size());
  random_->fill(random.data(), random.size() * sizeof random.front());
  for (std::size_t i = 0; i < batch.size(); ++i) {
    if (batch[i].request_body.capacity() > kKeptBody) batch[i].request_body = std::string();
    backlog_.pop(batch[i]);
    put_ordered_uuid(batch[i].id, random[i], batch[i].created_at);
  }
}

void AuditWriter::add(AuditRecord&& record, bool bounded) {
#ifdef MCPGW_BENCH_UNOBSERVED  // tests/bench measures what observing costs
  return;
#endif
  prepare(record, bounded);
  bool wake;
  {
    const std::lock_guard lock(mutex_);
    // The writer looks again by itself within the flush window; only a first row or a full batch wakes it.
    wake = queue_.empty() || queue_.size() + 1 == kBatch;
    enqueue_locked(record);
  }
  if (wake) ready_.notify_one();
}

Task<bool> AuditWriter::write(AuditRecord record) {
  add(std::move(record));
  return settled();
}

Task<bool> AuditWriter::settled() {
  if (!options_.sync) co_return true;
  auto waiter = std::make_shared<Waiter<bool>>(*Loop::current());
  {
    const std::lock_guard lock(mutex_);
    if (done_ >= queued_) co_return true;
    sync_waiters_.emplace_back(queued_, waiter);
  }
  const auto stored = co_await waiter->wait(std::chrono::steady_clock::now() + kSyncPatience);
  co_return stored.value_or(false);
}

bool AuditWriter::store(AuditRecord record) {
  prepare(record, false);
  std::unique_lock lock(mutex_);
  enqueue_locked(record);
  ready_.notify_one();
  if (!options_.sync) return true;
  const std::uint64_t number = queued_, failures = failures_;
  flushed_.wait_for(lock, kSyncPatience,
                    [&] { return done_ >= number || failures_ != failures || stopping_; });
  return done_ >= number;
}

void AuditWriter::prepare(AuditRecord& record, bool bounded) const {
  if (record.created_at == Time{}) record.created_at = clock_->now();
  if (!bounded) bound_row(record);
}

void AuditWriter::run() {
  auto retry = kRetryFirst;
  // At once: a gateway that is restarted often removes old rows, too.
  auto next_purge = std::chrono::steady_clock::now();
  std::vector<AuditRecord> batch;
  bool again = false;  // `batch` could not be stored
  std::unique_lock lock(mutex_);
  for (;;) {
    const bool idle = !again && backlog_.empty();
    if (idle) {
      ready_.wait_until(lock, next_purge, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty() && stopping_) return;
    }
    if (!stopping_ && std::chrono::steady_clock::now() >= next_purge) {
      next_purge = std::chrono::steady_clock::now() + kPurgeEvery;
      lock.unlock();
      if (auto purged = sink_->purge(clock_->now() - options_.retention); !purged && log_)
        log_({LogLevel::warn,
              "audit",
              "old audit rows could not be removed",
              {{"reason", purged.error().reason}}});
      lock.lock();
    }
    if (idle) {
      if (queue_.empty()) continue;
      if (!stopping_ && !options_.sync && queue_.size() < kBatch)
        ready_.wait_for(lock, kFlushWindow, [this] { return stopping_ || queue_.size() >= kBatch; });
      backlog_.swap(queue_);
      taken_ = backlog_.size();
    }
    lock.unlock();
    if (!again) unpack(batch);
    const Status stored = sink_->append(batch);
    again = !stored;
    lock.lock();
    if (!stored) {
      const std::string left = std::to_string(queue_.size() + taken_);
      if (!failing_ && log_)
        log_({LogLevel::error,
              "audit",
              "audit rows cannot be stored; they are kept and tried again",
              {{"reason", stored.error().reason}, {"queued", left}}});
      failing_ = true;
      ++failures_;
      (void)admits_locked();
      flushed_.notify_all();
      for (auto& [number, waiter] : sync_waiters_) waiter->set(false);
      sync_waiters_.clear();
      if (stopping_) {
        if (log_)
          log_({LogLevel::error,
                "audit",
                "audit rows are lost: the gateway ends while they cannot be stored",
                {{"rows", left}}});
        flushed_.notify_all();
        return;
      }
      ready_.wait_for(lock, retry, [this] { return stopping_; });
      retry = std::min(retry * 2, kRetryMax);
      continue;
    }
    if (failing_ && log_) log_({LogLevel::info, "audit", "audit rows are stored again", {}});
    failing_ = false;
    retry = kRetryFirst;
    done_ += batch.size();
    taken_ -= batch.size();
    (void)admits_locked();
    std::erase_if(sync_waiters_, [this](auto& entry) {
      if (entry.first > done_) return false;
      entry.second->set(true);
      return true;
    });
    for (const auto& waiter : space_waiters_) waiter->set(true);
    space_waiters_.clear();
    flushed_.notify_all();
  }
}

bool AuditWriter::flush(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  const std::uint64_t target = queued_;
  return flushed_.wait_for(lock, timeout, [&] { return done_ >= target; });
}

void AuditWriter::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ready_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::size_t AuditWriter::depth() const {
  const std::lock_guard lock(mutex_);
  return queue_.size() + taken_;
}

std::uint64_t AuditWriter::written() const {
  const std::lock_guard lock(mutex_);
  return done_;
}

bool AuditWriter::failing() const {
  const std::lock_guard lock(mutex_);
  return failing_;
}

}  // namespace mcpgw::detail
