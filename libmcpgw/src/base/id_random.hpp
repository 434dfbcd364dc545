// A source for ids, which must be unique but are no secrets.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>
#include <string>

#include "mcpgw/clock.hpp"
#include "mcpgw/random.hpp"

namespace mcpgw::detail {

/// A version 7 UUID (RFC 9562, section 5.7) in lower case: those of one millisecond sort before those of the
/// next, so that an index over them grows at its end. `out` becomes it; its memory is used again.
void put_ordered_uuid(std::string& out, const std::array<unsigned char, 10>& random, Time time);

/// Draws from another source in large pieces: a cryptographic generator costs microseconds a call, whatever
/// the size. Not for tokens, keys and nonces: a process that forks would have the same ones as its child.
class IdRandom final : public Random {
 public:
  explicit IdRandom(std::shared_ptr<Random> source) : source_(std::move(source)) {}

  void fill(void* data, std::size_t size) override {
    if (size > kBytes) return source_->fill(data, size);
    const std::lock_guard lock(mutex_);
    if (used_ + size > kBytes) {
      source_->fill(bytes_.data(), kBytes);
      used_ = 0;
    }
    std::copy_n(bytes_.data() + used_, size, static_cast<unsigned char*>(data));
    used_ += size;
  }

 private:
  static constexpr std::size_t kBytes = 4096;
  const std::shared_ptr<Random> source_;
  std::mutex mutex_;  // guards what follows
  std::array<unsigned char, kBytes> bytes_{};
  std::size_t used_ = kBytes;
};

}  // namespace mcpgw::detail
