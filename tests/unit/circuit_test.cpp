#include "gateway/circuit.hpp"

#include <doctest/doctest.h>

using namespace mcpgw;
using namespace mcpgw::detail;
using namespace std::chrono_literals;
using Outcome = CircuitBreaker::Outcome;

namespace {

/// One try at a time; whether it was let through.
bool attempt(CircuitBreaker& breaker, SteadyTime now, Outcome outcome) {
  auto pass = breaker.enter(now);
  if (pass) (void)pass->end(outcome, now);
  return pass.has_value();
}

}  // namespace

TEST_CASE("a circuit opens after so many failures in a row, and one try in each pause decides") {
  CircuitBreaker breaker(3, 1000ms);
  const SteadyTime start = std::chrono::steady_clock::now();
  CHECK(attempt(breaker, start, Outcome::failed));
  CHECK(attempt(breaker, start, Outcome::failed));
  CHECK(attempt(breaker, start, Outcome::worked));  // no longer in a row
  CHECK(attempt(breaker, start, Outcome::failed));
  CHECK(attempt(breaker, start, Outcome::failed));
  CHECK(attempt(breaker, start, Outcome::neither));  // says nothing
  CHECK_FALSE(breaker.is_open());
  CHECK(attempt(breaker, start, Outcome::failed));
  CHECK(breaker.is_open());
  CHECK_FALSE(attempt(breaker, start + 999ms, Outcome::worked));
  // Half open: one goes through, and whoever comes while it runs does not.
  {
    auto probe = breaker.enter(start + 1000ms);
    REQUIRE(probe);
    CHECK_FALSE(breaker.enter(start + 1000ms));
    CHECK_FALSE(probe->end(Outcome::failed, start + 1100ms));
  }
  // It failed: the pause doubles.
  CHECK_FALSE(attempt(breaker, start + 3099ms, Outcome::worked));
  auto probe = breaker.enter(start + 3100ms);
  REQUIRE(probe);
  CHECK(probe->end(Outcome::worked, start + 3200ms));  // this one closed it
  CHECK_FALSE(breaker.is_open());
  for (int i = 0; i < 2; ++i) CHECK(attempt(breaker, start + 3200ms, Outcome::failed));
  CHECK_FALSE(breaker.is_open());
  CHECK(attempt(breaker, start + 3200ms, Outcome::failed));
  CHECK_FALSE(attempt(breaker, start + 4199ms, Outcome::worked));
  CHECK(attempt(breaker, start + 4200ms, Outcome::worked));  // the pause is the first one again
}

TEST_CASE(
    "a pause has a bound, a try that takes long holds up none but its own pause, one given up is no try") {
  CircuitBreaker breaker(1, 1000ms);
  SteadyTime now = std::chrono::steady_clock::now();
  CHECK(attempt(breaker, now, Outcome::failed));
  for (int i = 0; i < 12; ++i) {
    now += 30s;
    CHECK(attempt(breaker, now, Outcome::failed));
  }
  CHECK_FALSE(breaker.enter(now + 29s));
  auto slow = breaker.enter(now + 30s);
  REQUIRE(slow);
  auto next = breaker.enter(now + 60s);
  REQUIRE(next);
  // It was cancelled: the next one is let through at once.
  next.reset();
  CHECK(attempt(breaker, now + 60s, Outcome::worked));
  CHECK_FALSE(breaker.is_open());
  // What fails late is the first failure in a row.
  CHECK_FALSE(slow->end(Outcome::failed, now + 61s));
  CHECK(breaker.is_open());
}

TEST_CASE("a circuit that is switched off never opens; an administrator's try goes through an open one") {
  CircuitBreaker off(0, 1000ms);
  const SteadyTime now = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) CHECK(attempt(off, now, Outcome::failed));
  CHECK_FALSE(off.is_open());
  CircuitBreaker breaker(1, 1000ms);
  CHECK(attempt(breaker, now, Outcome::failed));
  CHECK_FALSE(breaker.enter(now));
  CHECK(breaker.force().end(Outcome::worked, now));
  CHECK(breaker.enter(now));
}

TEST_CASE("what is a place's failure, and what is only a call's") {
  const auto of = [](ErrorCode code, const char* reason) {
    return CircuitBreaker::outcome_of(Error(code, reason, ""));
  };
  CHECK(of(ErrorCode::unavailable, "upstream_unreachable") == Outcome::failed);
  CHECK(of(ErrorCode::unavailable, "upstream_closed") == Outcome::failed);
  CHECK(of(ErrorCode::unavailable, "upstream_protocol_error") == Outcome::failed);  // HTTP 5xx
  for (const char* reason : {"upstream_timeout", "cancelled", "session_lost", "address_not_allowed"})
    CHECK(of(ErrorCode::unavailable, reason) == Outcome::neither);
  CHECK(of(ErrorCode::invalid_argument, "upstream_protocol_error") == Outcome::worked);  // HTTP 401, rubbish
  CHECK(of(ErrorCode::resource_exhausted, "response_too_large") == Outcome::worked);
  CHECK(CircuitBreaker::refusal().reason == kCircuitOpen);
}
