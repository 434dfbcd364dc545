#include "observability/audit_writer.hpp"

#include "base/id_random.hpp"

namespace mcpgw::detail {
namespace {
constexpr std::size_t kBatch = 500;
constexpr auto kFlushWindow = std::chrono::milliseconds(50);
constexpr auto kRetryFirst = std::chrono::milliseconds(200);
constexpr auto kRetryMax = std::chrono::milliseconds(5000);
constexpr auto kPurgeEvery = std::chrono::hours(1);
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

Task<bool> AuditWriter::admit(SteadyTime deadline) {
  for (;;) {
    std::shared_ptr<Waiter<bool>> waiter;
    {
      const std::lock_guard lock(mutex_);
      if (queue_.size() + taken_ < options_.queue_max) co_return true;
      if (stopping_) co_return false;
      waiter = std::make_shared<Waiter<bool>>(*Loop::current());
      space_waiters_.push_back(waiter);
    }
    if (!co_await waiter->wait(deadline)) co_return false;
  }
}

void AuditWriter::add(AuditRecord record) {
  if (record.created_at == Time{}) record.created_at = clock_->now();
  record.id = make_ordered_uuid(*random_, record.created_at);
  bool wake;
  {
    const std::lock_guard lock(mutex_);
    // The writer looks again by itself within the flush window; only a first row or a full batch wakes it.
    wake = queue_.empty() || queue_.size() + 1 == kBatch;
    queue_.push_back(std::move(record));
    ++queued_;
  }
  if (wake) ready_.notify_one();
}

Task<bool> AuditWriter::write(AuditRecord record) {
  if (!options_.sync) {
    add(std::move(record));
    co_return true;
  }
  auto waiter = std::make_shared<Waiter<bool>>(*Loop::current());
  if (record.created_at == Time{}) record.created_at = clock_->now();
  record.id = make_ordered_uuid(*random_, record.created_at);
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(record));
    sync_waiters_.emplace_back(++queued_, waiter);
  }
  ready_.notify_one();
  const auto stored = co_await waiter->wait(std::chrono::steady_clock::now() + std::chrono::seconds(10));
  co_return stored.value_or(false);
}

void AuditWriter::run() {
  auto retry = kRetryFirst;
  auto last_purge = std::chrono::steady_clock::now();
  // Out of the queue, not stored yet: it is neither copied nor destroyed under the lock that requests take.
  std::vector<AuditRecord> batch;
  std::unique_lock lock(mutex_);
  for (;;) {
    if (batch.empty()) {
      ready_.wait_for(lock, std::chrono::seconds(1), [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty() && stopping_) return;
    }
    if (std::chrono::steady_clock::now() - last_purge >= kPurgeEvery) {
      last_purge = std::chrono::steady_clock::now();
      lock.unlock();
      if (auto purged = sink_->purge(clock_->now() - options_.retention); !purged && log_)
        log_({LogLevel::warn,
              "audit",
              "old audit rows could not be removed",
              {{"reason", purged.error().reason}}});
      lock.lock();
    }
    if (batch.empty()) {
      if (queue_.empty()) continue;
      if (!stopping_ && !options_.sync && queue_.size() < kBatch)
        ready_.wait_for(lock, kFlushWindow, [this] { return stopping_ || queue_.size() >= kBatch; });
      const auto end = queue_.begin() + static_cast<std::ptrdiff_t>(std::min(queue_.size(), kBatch));
      batch.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(end));
      queue_.erase(queue_.begin(), end);
      taken_ = batch.size();
    }
    lock.unlock();
    const Status stored = sink_->append(batch);
    if (stored) batch.clear();
    lock.lock();
    if (!stored) {
      const std::string left = std::to_string(queue_.size() + taken_);
      if (!failing_ && log_)
        log_({LogLevel::error,
              "audit",
              "audit rows cannot be stored; they are kept and tried again",
              {{"reason", stored.error().reason}, {"queued", left}}});
      failing_ = true;
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
    done_ += taken_;
    taken_ = 0;
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
