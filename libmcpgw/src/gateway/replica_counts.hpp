// ReplicaCounts: what one user may have at all replicas together. Each replica counts what it has in memory;
// when one more is asked for, the others are asked how many they have. One's own counts before the question,
// so of two who ask at once at least one sees the other: nobody gets more than the limit while all answer.
// Who does not answer within a second counts as having none. Nothing of it is on the way of a call.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "gateway/core.hpp"

namespace mcpgw::detail {

/// What replicas ask one another; the argument is a user's id, the answer a number.
namespace question {
inline constexpr std::string_view kStreams = "streams";      ///< open ones, and those about to be opened
inline constexpr std::string_view kProcesses = "processes";  ///< of that user alone
/// How long the session that nobody uses most has been idle (SessionRegistry::idlest()); 0: there is none.
inline constexpr std::string_view kIdleSession = "idle-session";
inline constexpr std::string_view kEndIdleSession = "end-idle-session";  ///< that one; 1: done
inline constexpr std::string_view kEndIdleProcess = "end-idle-process";  ///< the one idle longest; 1: done
}  // namespace question

/// Answered from memory, on any thread. nullopt: that is not such a question.
std::optional<std::int64_t> answer_question(GatewayCore& core, std::string_view what,
                                            const std::string& argument);

/// Safe from any thread.
class ReplicaCounts : public std::enable_shared_from_this<ReplicaCounts> {
 public:
  /// A stream that is about to be opened: counts as one until it is dropped or handed over.
  class Hold {
   public:
    Hold() = default;
    Hold(std::shared_ptr<ReplicaCounts> counts, std::string user_id);
    Hold(Hold&& other) noexcept { swap(other); }
    Hold& operator=(Hold&& other) noexcept {
      swap(other);
      return *this;
    }
    ~Hold();

    /// `count` makes the stream count itself: at no moment is it counted twice, or not at all. An empty hold
    /// calls it, too. It must not ask for the counts.
    template <class F>
    void hand_over(F&& count) {
      if (!counts_) return std::forward<F>(count)();
      const auto counts = std::exchange(counts_, nullptr);
      const std::lock_guard lock(counts->mutex_);
      counts->forget_locked(user_id_);
      std::forward<F>(count)();
    }

   private:
    void swap(Hold& other) noexcept {
      std::swap(counts_, other.counts_);
      std::swap(user_id_, other.user_id_);
    }
    std::shared_ptr<ReplicaCounts> counts_;
    std::string user_id_;
  };

  explicit ReplicaCounts(const std::shared_ptr<GatewayCore>& core) : core_(core) {}

  /// Whether the user may open one more stream; `hold` is kept until it counts itself. Awaited on a loop.
  Task<bool> stream_fits(std::string user_id, Hold& hold);
  /// The same on a thread that may wait; not on a loop.
  bool stream_fits_blocking(const std::string& user_id, Hold& hold);

  /// Open streams of the user here, and those about to be opened.
  std::size_t streams_here(const std::string& user_id) const;

 private:
  void forget_locked(const std::string& user_id);

  const std::weak_ptr<GatewayCore> core_;
  mutable std::mutex mutex_;  // guards what follows; taken before those of sessions and streams
  std::map<std::string, std::size_t> opening_;  ///< by user
};

}  // namespace mcpgw::detail
