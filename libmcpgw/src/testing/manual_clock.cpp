// ManualClock and the seeded Random: the two sources of nondeterminism a test takes over.
#include <algorithm>
#include <cstring>

#include "mcpgw/testing.hpp"

namespace mcpgw::testing {
namespace {

constexpr std::int64_t kStartUs = 1'767'225'600'000'000;  // 2026-01-01T00:00:00Z

class SeededRandom final : public Random {
 public:
  explicit SeededRandom(std::uint64_t seed) : state_(seed) {}

  void fill(void* data, std::size_t size) override {
    std::lock_guard lock(mutex_);
    auto* out = static_cast<unsigned char*>(data);
    for (std::size_t done = 0; done < size; done += sizeof(std::uint64_t)) {
      const std::uint64_t word = next();
      std::memcpy(out + done, &word, std::min(sizeof word, size - done));
    }
  }

 private:
  // SplitMix64: every seed gives a full-period sequence.
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }

  std::mutex mutex_;
  std::uint64_t state_;
};

}  // namespace

ManualClock::ManualClock() : now_us_(kStartUs) {}
Time ManualClock::now() const { return Time(Duration(now_us_.load())); }
Duration ManualClock::monotonic() const { return Duration(now_us_.load() - kStartUs); }
void ManualClock::advance(Duration by) {
  if (by > Duration::zero()) now_us_.fetch_add(by.count());  // monotonic() must never go back
}

std::shared_ptr<Random> make_seeded_random(std::uint64_t seed) {
  return std::make_shared<SeededRandom>(seed);
}

}  // namespace mcpgw::testing
