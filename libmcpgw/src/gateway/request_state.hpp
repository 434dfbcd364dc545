// requestState of the modern era (MCP 2026-07-28, basic/patterns/mrtr): what the gateway must know when a
// client repeats a request with the input that was asked for. It travels through the client, sealed: nobody
// else can read or make one, and it is good for one user, one request and a short time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "mcpgw/clock.hpp"
#include "mcpgw/random.hpp"
#include "mcpgw/repository.hpp"
#include "secrets/key_ring.hpp"

namespace mcpgw::detail {

struct RequestState {
  std::string user_id;
  std::string target_id;
  std::string method;
  std::string digest;   ///< request_digest() of the params
  std::string parked;   ///< id of the call that waits in this process; empty: none waits
  std::string replica;  ///< the process in which it waits
  std::int64_t round = 0;
  std::int64_t expires = 0;             ///< seconds since 1970
  std::optional<std::string> upstream;  ///< the state that a modern upstream gave, byte for byte
};

/// Of what makes a request the same one when it is repeated: name or URI, and arguments, however they are
/// spelt.
std::string request_digest(std::string_view method, std::string_view params);

/// Safe from any thread.
class RequestStates {
 public:
  /// invalid_argument when a key is not 32 bytes long.
  static Result<std::shared_ptr<RequestStates>> create(const EncryptionKeys& keys,
                                                       std::shared_ptr<Clock> clock,
                                                       std::shared_ptr<Random> random,
                                                       KeyRing::Source source);

  std::string seal(const RequestState& state) const;
  /// nullopt for a text that was not made here, was altered, or has lapsed.
  std::optional<RequestState> open(std::string_view sealed) const;
  /// Keys were replaced elsewhere.
  void refresh(std::string in_force) const {
    ring_->refresh();
    ring_->put_in_force(std::move(in_force), {});
  }
  std::int64_t now() const;

 private:
  RequestStates(std::shared_ptr<KeyRing> ring, std::shared_ptr<Clock> clock)
      : ring_(std::move(ring)), clock_(std::move(clock)) {}
  const std::shared_ptr<KeyRing> ring_;
  const std::shared_ptr<Clock> clock_;
};

}  // namespace mcpgw::detail
