#include "gateway/key_rotation_worker.hpp"

#include <chrono>

namespace mcpgw::detail {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::seconds kTryAgain{1};
/// Each try reads every sealed value.
constexpr std::chrono::seconds kTryParked{10};
constexpr std::chrono::seconds kReportEvery{5};

using Fields = std::vector<std::pair<std::string, std::string>>;

Fields fields_of(const KeyRotation& rotation) {
  return {{"key", rotation.key},
          {"resealed", std::to_string(rotation.progress.resealed)},
          {"values", std::to_string(rotation.total)}};
}

}  // namespace

KeyRotationWorker::KeyRotationWorker(std::shared_ptr<Repository> repository, Log log)
    : repository_(std::move(repository)), log_(std::move(log)), thread_([this] { run(); }) {}

void KeyRotationWorker::notify() {
  const std::lock_guard lock(mutex_);
  wanted_ = true;
  changed_.notify_all();
}

void KeyRotationWorker::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void KeyRotationWorker::report(const KeyRotation& rotation) {
  const auto& [checked, resealed, failed] = rotation.progress;
  const bool running = rotation.state == KeyRotation::State::running;
  running_.store(running, std::memory_order_relaxed);
  left_.store(running && rotation.total > resealed ? rotation.total - resealed : 0,
              std::memory_order_relaxed);
  unreadable_.store(failed, std::memory_order_relaxed);
}

void KeyRotationWorker::run() {
  std::unique_lock lock(mutex_);
  bool failed = false, parked = false;
  for (;;) {
    if (failed)
      changed_.wait_for(lock, parked ? kTryParked : kTryAgain, [this] { return stopping_; });
    else
      changed_.wait(lock, [this] { return stopping_ || wanted_; });
    if (stopping_) return;
    wanted_ = false;
    lock.unlock();
    auto rotation = repository_->key_rotation();
    if (rotation) report(*rotation);
    if (rotation && rotation->state == KeyRotation::State::running) {
      log_(LogLevel::info, "a new encryption key is in force: what older ones sealed is being sealed anew",
           fields_of(*rotation));
      auto reported = steady_clock::now();
      rotation = repository_->run_key_rotation([&](const KeyRotation& now) {
        report(now);
        if (steady_clock::now() - reported >= kReportEvery) {
          reported = steady_clock::now();
          log_(LogLevel::info, "sealing anew goes on", fields_of(now));
        }
        const std::lock_guard stop_lock(mutex_);
        return !stopping_;
      });
      if (rotation) report(*rotation);
      const bool news = !parked;
      parked = !rotation && rotation.error().reason == "key_unknown";
      if (parked && news)
        log_(LogLevel::error, "older encryption keys stay in use for now",
             {{"cause", rotation.error().message}});
      if (rotation && rotation->state == KeyRotation::State::done)
        log_(LogLevel::info,
             "everything is sealed with the new encryption key; older ones open nothing any more",
             fields_of(*rotation));
      if (rotation && rotation->state == KeyRotation::State::incomplete) {
        auto fields = fields_of(*rotation);
        fields.emplace_back("unreadable", std::to_string(rotation->progress.failed));
        log_(LogLevel::error,
             "some stored values cannot be opened with any key: set the missing key in "
             "encryption.previous_keys and run mcpgw keys rotate encryption, or write those values anew",
             std::move(fields));
      }
    }
    lock.lock();
    failed = !rotation;
  }
}

}  // namespace mcpgw::detail
