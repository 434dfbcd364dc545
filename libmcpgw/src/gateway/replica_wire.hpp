// What replicas say to one another: a request of a client, sealed with the key that all replicas share, and
// its answer in lines sealed with a key made for this request alone. So nobody else can ask, read or answer,
// whatever the network between them is. Pure functions but for the memory of what has been seen.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "mcpgw/clock.hpp"
#include "mcpgw/http.hpp"
#include "mcpgw/random.hpp"
#include "secrets/key_ring.hpp"

namespace mcpgw::detail {

inline constexpr std::string_view kReplicaPath = "/forward";

/// A request that one replica hands to another.
struct ReplicaRequest {
  std::string from, to;  ///< ids of replicas
  std::string key;       ///< 32 bytes: seals the answer
  HttpRequest request;
};

/// Safe from any thread.
class ReplicaSeal {
 public:
  ReplicaSeal(std::shared_ptr<KeyRing> ring, std::shared_ptr<Clock> clock)
      : ring_(std::move(ring)), clock_(std::move(clock)) {}

  std::string seal(const ReplicaRequest& request) const;
  /// Once for each text. unauthenticated/"unauthorized": not made by a replica, or too long ago, or seen
  /// before. unavailable/"overloaded": too much has been seen.
  Result<ReplicaRequest> open(std::string_view sealed);
  void refresh(std::string in_force) const {
    ring_->refresh();
    ring_->put_in_force(std::move(in_force), {});
  }

  /// How far the clocks of replicas may differ, and how long a request may be under way.
  static constexpr std::int64_t kSkewSeconds = 30;
  static constexpr std::size_t kMaxSeen = 200000;

 private:
  std::int64_t now() const;
  Status remember(const std::string& key);

  const std::shared_ptr<KeyRing> ring_;
  const std::shared_ptr<Clock> clock_;
  std::mutex mutex_;  // guards what follows
  std::set<std::string> seen_, seen_before_;
  std::int64_t turned_ = 0;
};

/// One line of an answer.
struct ReplicaFrame {
  enum class Kind : char {
    answer = 'A',  ///< all of it
    start = 'S',   ///< head and first part of a stream
    data = 'D',
    end = 'E',
    alive = 'P',
    absent = 'R',  ///< the session or call is not here
  };
  Kind kind = Kind::alive;
  HttpResponse response;  ///< of answer and start; of data only the body
};

/// Seals, or opens, the lines of one answer in their order. Not synchronised.
class ReplicaFrames {
 public:
  /// `key` as in ReplicaRequest; nullptr when it is none.
  static std::unique_ptr<ReplicaFrames> create(const std::string& key, std::shared_ptr<Random> random);

  /// With its line feed.
  std::string seal(const ReplicaFrame& frame);
  /// nullopt: not what the other side has sent, or not the next.
  std::optional<ReplicaFrame> open(std::string_view line);

 private:
  explicit ReplicaFrames(std::shared_ptr<Sealer> sealer) : sealer_(std::move(sealer)) {}
  std::string identity();

  const std::shared_ptr<Sealer> sealer_;
  std::uint64_t number_ = 0;
};

}  // namespace mcpgw::detail
