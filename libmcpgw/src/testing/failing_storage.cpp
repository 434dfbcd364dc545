#include <utility>

#include "mcpgw/testing.hpp"

namespace mcpgw::testing {
namespace {

Error down_error() {
  return {ErrorCode::unavailable, "storage_unavailable", "The storage does not answer; try again later."};
}

}  // namespace

FailingStorage::FailingStorage(std::shared_ptr<Storage> inner) : inner_(std::move(inner)) {}

void FailingStorage::fail_commit(int nth, Error error, bool after_commit) {
  std::lock_guard lock(mutex_);
  countdown_ = nth;
  error_ = std::move(error);
  after_ = after_commit;
}

void FailingStorage::fail_call(int nth, Error error) {
  std::lock_guard lock(mutex_);
  call_countdown_ = nth;
  call_error_ = std::move(error);
}

bool FailingStorage::failure_pending() const {
  std::lock_guard lock(mutex_);
  return countdown_ > 0 || call_countdown_ > 0;
}

void FailingStorage::heal() {
  std::lock_guard lock(mutex_);
  countdown_ = call_countdown_ = 0;
}

void FailingStorage::set_down(bool down) {
  std::lock_guard lock(mutex_);
  down_ = down;
}

std::optional<Error> FailingStorage::failure_of_call() {
  std::lock_guard lock(mutex_);
  if (down_) return down_error();
  if (call_countdown_ > 0 && --call_countdown_ == 0) return call_error_;
  return std::nullopt;
}

Result<std::optional<Record>> FailingStorage::get(std::string_view collection, std::string_view key) {
  if (auto failure = failure_of_call()) return *failure;
  return inner_->get(collection, key);
}

Result<std::vector<Record>> FailingStorage::list(std::string_view collection, std::string_view prefix,
                                                 std::string_view after, std::size_t limit) {
  if (auto failure = failure_of_call()) return *failure;
  return inner_->list(collection, prefix, after, limit);
}

Result<std::vector<std::uint64_t>> FailingStorage::commit(const std::vector<Operation>& operations) {
  if (auto failed = failure_of_call()) return *failed;
  std::optional<Error> failure;
  bool after = false;
  {
    std::lock_guard lock(mutex_);
    if (countdown_ > 0 && --countdown_ == 0) {
      failure = error_;
      after = after_;
    }
  }
  if (!failure) return inner_->commit(operations);
  // The answer is lost, not the commit: what a connection that breaks at the wrong moment looks like.
  if (after) {
    if (auto done = inner_->commit(operations); !done) return done;
  }
  return *failure;
}

std::uint64_t FailingStorage::watch(WatchCallback callback) { return inner_->watch(std::move(callback)); }
void FailingStorage::unwatch(std::uint64_t id) { inner_->unwatch(id); }

Status FailingStorage::ping() {
  {
    std::lock_guard lock(mutex_);
    if (down_) return down_error();
  }
  return inner_->ping();
}

}  // namespace mcpgw::testing
