// What holds while others guess, change and race: limits, the hash gate, changes in the middle.
#include <time.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <thread>

#include "auth/hash_gate.hpp"
#include "auth/login_limits.hpp"
#include "auth/rate_limiter.hpp"
#include "unit/auth_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;
using detail::HashGate;
using detail::LoginLimits;
using detail::rate_address;
using detail::RateLimiter;

namespace {

/// Stops at the next fill until it is let go: holds a password hash where it is.
class StoppingRandom : public Random {
 public:
  void fill(void* data, std::size_t size) override {
    std::unique_lock lock(mutex_);
    if (armed_) {
      armed_ = false;
      stopped_ = true;
      changed_.notify_all();
      changed_.wait(lock, [&] { return go_; });
    }
    lock.unlock();
    random_->fill(data, size);
  }
  void arm() {
    const std::lock_guard lock(mutex_);
    armed_ = true;
  }
  void wait_until_stopped() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stopped_; });
  }
  void let_go() {
    const std::lock_guard lock(mutex_);
    go_ = true;
    changed_.notify_all();
  }

 private:
  const std::shared_ptr<Random> random_ = make_system_random();
  std::mutex mutex_;
  std::condition_variable changed_;
  bool armed_ = false, stopped_ = false, go_ = false;
};

void run_at_once(int count, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&work, i] { work(i); });
  for (auto& thread : threads) thread.join();
}

bool has_login_row(const Repository& repository, const std::string& user_id) {
  const auto rows = repository.tokens_of(user_id);
  return std::any_of(rows.begin(), rows.end(), [](const auto& row) { return row->name == "Login"; });
}

double cpu_seconds() {
  timespec out{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &out);
  return static_cast<double>(out.tv_sec) + static_cast<double>(out.tv_nsec) * 1e-9;
}

}  // namespace

TEST_CASE("the rate limiter counts in a sliding window and in bounded memory") {
  RateLimiter limiter(2, std::chrono::seconds(10), 100);
  for (int i = 0; i < 10000; ++i) limiter.record("n" + std::to_string(i), Duration(0));
  CHECK(limiter.size() == 100);
  limiter.record("x", Duration(0));
  limiter.record("x", std::chrono::seconds(5));
  CHECK_FALSE(limiter.allowed("x", std::chrono::seconds(9)));
  CHECK_FALSE(limiter.take("x", std::chrono::seconds(9)));
  CHECK(limiter.take("x", std::chrono::seconds(10)));
  CHECK_FALSE(limiter.take("x", std::chrono::seconds(14)));
  CHECK(limiter.take("x", std::chrono::seconds(15)));
  limiter.clear("x");
  limiter.clear("never seen");
  CHECK(limiter.allowed("x", std::chrono::seconds(15)));
  // What is over leaves by and by, without anybody asking for it.
  for (int i = 0; i < 60; ++i) limiter.record("y", std::chrono::seconds(100));
  CHECK(limiter.size() == 1);
  CHECK_FALSE(limiter.allowed("y", std::chrono::seconds(100)));
}

TEST_CASE("a flood of names does not push out the one that is under attack") {
  RateLimiter limiter(3, std::chrono::seconds(10), 100);
  for (int i = 0; i < 1000; ++i) {
    limiter.record("flood" + std::to_string(i), Duration(0));
    if (i % 50 == 0) limiter.record("victim", Duration(0));
  }
  CHECK_FALSE(limiter.allowed("victim", Duration(0)));
}

TEST_CASE("addresses: one network of a client counts as one") {
  CHECK(rate_address("10.0.0.1") == "10.0.0.1");
  CHECK(rate_address("::ffff:10.0.0.1") == "10.0.0.1");
  CHECK(rate_address("2001:db8:0:1::1") == rate_address("2001:DB8:0:1:ffff:ffff:ffff:ffff"));
  CHECK(rate_address("2001:db8:0:1::1") != rate_address("2001:db8:0:2::1"));
  CHECK(rate_address("fe80::1%eth0") == rate_address("fe80::2"));
  CHECK(rate_address("") == "");
  CHECK(rate_address("no address") == "no address");
}

TEST_CASE("R44: login limits per pair, per address, per account") {
  const Duration now{0};
  LoginLimits limits(2, 4, 6, std::chrono::minutes(15));
  const auto fail = [&](const char* account, const char* address) {
    return limits.settle(account, address, false, now).value();
  };
  CHECK(fail("a", "1"));
  CHECK(limits.settle("a", "1", true, now).value());  // clears the pair, not the address and the account
  CHECK(fail("a", "1"));
  CHECK(fail("a", "1"));
  CHECK_FALSE(fail("a", "1"));
  CHECK_FALSE(limits.settle("a", "1", true, now).value());
  CHECK(fail("b", "1"));
  CHECK_FALSE(limits.allowed("c", "1", now));  // four failures of the address
  CHECK(fail("a", "2"));
  CHECK(fail("a", "2"));
  CHECK(fail("a", "3"));
  CHECK_FALSE(limits.allowed("a", "4", now));  // six of the account
  CHECK(limits.allowed("b", "4", now));
  CHECK(limits.allowed("a", "4", std::chrono::minutes(15)));
  // The parts of a pair do not run together.
  CHECK(fail("x\ny", "z"));
  CHECK(fail("x\ny", "z"));
  CHECK(limits.allowed("y", "z\nx", now));
}

TEST_CASE("R44: guesses in parallel gain nothing over guesses in a row") {
  AuthFixture f([](auto& o) {
    o.login_failures_per_pair = 3;
    o.max_parallel_hashes = 4;
  });
  REQUIRE(f.register_as("root@example.test"));
  std::atomic<int> judged{0}, limited{0}, else_{0};
  run_at_once(16, [&](int i) {
    const std::string answer =
        reason(f.auth->login("root@example.test", "guess number " + std::to_string(i), "6.6.6.6"));
    (answer == "invalid_credentials" ? judged : answer == "rate_limited" ? limited : else_)++;
  });
  CHECK(judged == 3);
  CHECK(limited == 13);
  CHECK(else_ == 0);
  CHECK(reason(f.auth->login("root@example.test", kPassword, "6.6.6.6")) == "rate_limited");
  CHECK(reason(f.auth->login("root@example.test", kPassword, "7.7.7.7")) == "ok");
}

TEST_CASE("R44: unknown accounts are limited alike, and changing a password counts as login does") {
  AuthFixture f([](auto& o) { o.login_failures_per_pair = 2; });
  const auto root = f.register_as("root@example.test");
  REQUIRE(root);
  for (const char* email : {"nobody@example.test", "root@example.test"}) {
    CHECK(reason(f.auth->login(email, "wrong password", "a")) == "invalid_credentials");
    CHECK(reason(f.auth->login(email, "wrong password", "a")) == "invalid_credentials");
    CHECK(reason(f.auth->login(email, "wrong password", "a")) == "rate_limited");
  }
  const auto me = *f.auth->authenticate_token(root->token);
  CHECK(reason(f.auth->change_password(me, kPassword, "another horse", false, "a")) == "rate_limited");
  CHECK(reason(f.auth->change_password(me, "wrong", "another horse", false, "b")) == "invalid_credentials");
  CHECK(reason(f.auth->change_password(me, "wrong", "another horse", false, "b")) == "invalid_credentials");
  CHECK(reason(f.auth->change_password(me, kPassword, "another horse", false, "b")) == "rate_limited");
  CHECK(reason(f.auth->login("root@example.test", kPassword, "b")) == "rate_limited");
  CHECK(reason(f.auth->change_password(me, kPassword, "another horse", false, "c")) == "ok");
}

TEST_CASE("R44: an unknown, a passwordless and a known account cost the same work") {
  AuthFixture f([](auto& o) { o.login_failures_per_address = 1000; });
  REQUIRE(f.register_as("root@example.test"));
  User external;
  external.email = "external@example.test";
  REQUIRE(f.repository->create_user(external));
  const auto cost = [&](const char* email) {
    double least = 1e9;
    for (int i = 0; i < 3; ++i) {
      const double start = cpu_seconds();
      CHECK(reason(f.auth->login(email, "wrong password", "a")) == "invalid_credentials");
      least = std::min(least, cpu_seconds() - start);
    }
    return least;
  };
  const double known = cost("root@example.test");
  for (const char* email : {"nobody@example.test", "external@example.test", "not an address"}) {
    const double ratio = cost(email) / known;
    CHECK(ratio > 0.7);
    CHECK(ratio < 1.4);
  }
}

TEST_CASE("R44: the registrations of an IPv6 network count together, also when made at once") {
  AuthFixture f([](auto& o) {
    o.registrations_per_address = 3;
    o.max_parallel_hashes = 2;
  });
  std::atomic<int> made{0}, limited{0};
  run_at_once(8, [&](int i) {
    const auto answer = reason(f.auth->register_user("u" + std::to_string(i) + "@example.test", kPassword, "",
                                                     "2001:db8::" + std::to_string(i)));
    (answer == "ok" ? made : limited)++;
    CHECK((answer == "ok" || answer == "rate_limited"));
  });
  CHECK(made == 3);
  CHECK(limited == 5);
}

TEST_CASE("the hash gate: so many at once, so many waiting, in order") {
  HashGate gate(1, 2);
  std::vector<int> order;
  std::thread first, second;
  {
    const HashGate::Pass held = gate.enter();
    REQUIRE(held);
    first = std::thread([&] {
      const HashGate::Pass pass = gate.enter();
      order.push_back(1);
    });
    while (gate.waiting() < 1) std::this_thread::yield();
    second = std::thread([&] {
      const HashGate::Pass pass = gate.enter();
      order.push_back(2);
    });
    while (gate.waiting() < 2) std::this_thread::yield();
    CHECK_FALSE(gate.enter());
  }
  first.join();
  second.join();
  CHECK(order == std::vector<int>{1, 2});
  CHECK(gate.waiting() == 0);
  CHECK(gate.enter());

  HashGate wide(3, 100);
  std::atomic<int> inside{0}, most{0}, done{0};
  run_at_once(16, [&](int) {
    for (int i = 0; i < 50; ++i) {
      const HashGate::Pass pass = wide.enter();
      if (!pass) continue;
      const int now = ++inside;
      for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
      }
      --inside;
      ++done;
    }
  });
  CHECK(most <= 3);
  CHECK(done == 800);
}

TEST_CASE("too many hashes: told to come again, and not counted as a failure") {
  const auto random = std::make_shared<StoppingRandom>();
  AuthFixture f(
      [](auto& o) {
        o.max_parallel_hashes = 1;
        o.max_waiting_hashes = 0;
        o.login_failures_per_pair = 1;
      },
      random);
  const auto root = f.register_as("root@example.test");
  REQUIRE(root);
  const auto me = *f.auth->authenticate_token(root->token);
  random->arm();
  std::thread busy([&] { CHECK(reason(f.register_as("bob@example.test")) == "ok"); });
  random->wait_until_stopped();
  for (int i = 0; i < 3; ++i) {
    const auto login = f.auth->login("root@example.test", "wrong password", "a");
    REQUIRE_FALSE(login);
    CHECK(login.error().reason == "overloaded");
    CHECK(login.error().code == ErrorCode::unavailable);
  }
  CHECK(reason(f.register_as("eve@example.test")) == "overloaded");
  CHECK(reason(f.auth->hash_password(kPassword)) == "overloaded");
  CHECK(reason(f.auth->change_password(me, kPassword, "another horse", false, "a")) == "overloaded");
  CHECK(reason(f.auth->authenticate_token(root->token)) == "ok");
  random->let_go();
  busy.join();
  CHECK(reason(f.auth->login("root@example.test", kPassword, "a")) == "ok");
}

TEST_CASE("a password that changes during a login: the old one opens nothing") {
  AuthFixture f;
  const auto root = f.register_as("root@example.test");
  REQUIRE(root);
  // Storage's answer counts, not what memory knew: the token and the note of the login are one transaction.
  f.storage->before_commit(1, [&] { f.set_password(root->user.id, "set by an admin"); });
  CHECK(reason(f.auth->login("root@example.test", kPassword, "a")) == "invalid_credentials");
  CHECK(f.live_tokens(root->user.id) == 0);
  CHECK_FALSE(has_login_row(*f.repository, root->user.id));
  CHECK_FALSE(f.repository->user(root->user.id)->last_login_at);
  CHECK(reason(f.auth->login("root@example.test", "set by an admin", "a")) == "ok");
  CHECK(f.repository->user(root->user.id)->last_login_at);
}

TEST_CASE("a user who is disabled or deleted during a login stays out") {
  for (const bool erase : {false, true}) {
    AuthFixture f;
    REQUIRE(f.register_as("root@example.test"));
    const auto bob = f.register_as("bob@example.test");
    REQUIRE(bob);
    f.storage->before_commit(1, [&] {
      if (erase)
        REQUIRE(f.repository->delete_user(bob->user.id));
      else
        f.set_enabled(bob->user.id, false);
    });
    CHECK(reason(f.auth->login("bob@example.test", kPassword, "a")) == "invalid_credentials");
    CHECK_FALSE(has_login_row(*f.repository, bob->user.id));
  }
}

TEST_CASE("two changes of one password: the second must know what the first set") {
  AuthFixture f;
  const auto root = f.register_as("root@example.test");
  REQUIRE(root);
  const auto me = *f.auth->authenticate_token(root->token);
  f.storage->before_commit(1, [&] { f.set_password(root->user.id, "set by an admin"); });
  CHECK(reason(f.auth->change_password(me, kPassword, "set by a thief", false, "a")) ==
        "invalid_credentials");
  CHECK(reason(f.auth->login("root@example.test", "set by a thief", "b")) == "invalid_credentials");
  CHECK(reason(f.auth->login("root@example.test", "set by an admin", "b")) == "ok");
  // Another change of the user is no obstacle.
  const auto now = f.auth->login("root@example.test", "set by an admin", "b");
  REQUIRE(now);
  const auto again = *f.auth->authenticate_token(now->token);
  f.storage->before_commit(1, [&] {
    UserPatch patch;
    patch.groups = std::vector<std::string>{"ops"};
    REQUIRE(f.repository->update_user(root->user.id, patch));
  });
  CHECK(reason(f.auth->change_password(again, "set by an admin", "chosen by root", false, "c")) == "ok");
  CHECK(f.repository->user(root->user.id)->groups == std::vector<std::string>{"ops"});
}

TEST_CASE("an imported hash is not replaced over a newer password") {
  AuthFixture f;
  User user;
  user.email = "old@example.test";
  user.password_hash = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
  const auto made = f.repository->create_user(user);
  REQUIRE(made);
  f.storage->before_commit(3, [&] { f.set_password(made->id, "set by an admin"); });
  (void)f.auth->login("old@example.test", "U*U", "a");
  CHECK(reason(f.auth->login("old@example.test", "U*U", "b")) == "invalid_credentials");
  CHECK(reason(f.auth->login("old@example.test", "set by an admin", "b")) == "ok");
  // The token that the old password earned just before has gone with it.
  CHECK(f.live_tokens(made->id) == 1);
}

TEST_CASE("R44: of registrations that pass for the first, one is it, on whatever replica") {
  AuthFixture f([](auto& o) {
    o.registration_open = false;
    o.setup_token = "let me in";
  });
  AuthenticatorOptions there = f.options;
  there.repository = f.open_repository();
  const auto other = *Authenticator::create(there);
  f.storage->before_commit(1, [&] {
    CHECK(reason(other->register_user("root@example.test", kPassword, "let me in", "b")) == "ok");
  });
  CHECK(reason(f.auth->register_user("late@example.test", kPassword, "let me in", "a")) ==
        "registration_closed");
  // What the other replica wrote arrives by a thread of its own.
  for (int i = 0; i < 10000 && f.repository->users().empty(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  REQUIRE(f.repository->users().size() == 1);
  CHECK(f.repository->users()[0]->email == "root@example.test");
  CHECK(f.repository->users()[0]->role == "admin");
  CHECK(reason(f.auth->login("late@example.test", kPassword, "a")) == "invalid_credentials");
}

TEST_CASE("a registration that cannot be stored leaves nothing behind") {
  const auto failing = std::make_shared<FailingStorage>(make_memory_storage());
  RepositoryOptions stored;
  stored.storage = failing;
  stored.keys.current = "0123456789abcdefghijklmnopqrstuv";
  AuthenticatorOptions options;
  options.repository = *Repository::open(std::move(stored));
  options.jwt_secret = kJwtSecret;
  const auto auth = *Authenticator::create(options);
  failing->fail_commit(1, Error(ErrorCode::unavailable, "storage_unavailable", "Storage is away"));
  CHECK(reason(auth->register_user("root@example.test", kPassword, "", "a")) == "storage_unavailable");
  CHECK(options.repository->users().empty());
  const auto root = auth->register_user("root@example.test", kPassword, "", "a");
  REQUIRE(root);
  CHECK(root->user.role == "admin");
  failing->set_down(true);
  CHECK(reason(auth->login("root@example.test", kPassword, "a")) == "storage_unavailable");
  CHECK(reason(auth->authenticate_token(root->token)) == "ok");
  failing->set_down(false);
  CHECK(reason(auth->login("root@example.test", kPassword, "a")) == "ok");
}

TEST_CASE("R49: everything at once") {
  AuthFixture f([](auto& o) { o.login_failures_per_pair = 1000; });
  const auto root = f.register_as("root@example.test");
  const auto bob = f.register_as("bob@example.test");
  REQUIRE(root);
  REQUIRE(bob);
  std::atomic<bool> stop{false};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i)
    readers.emplace_back([&] {
      while (!stop) {
        const auto principal = f.auth->authenticate_token(bob->token);
        if (principal) (void)f.auth->still_valid(*principal);
      }
    });
  run_at_once(6, [&](int i) {
    const std::string from = "10.0.0." + std::to_string(i);
    switch (i) {
      case 0:
        for (int n = 0; n < 4; ++n) {
          f.set_enabled(bob->user.id, false);
          f.set_enabled(bob->user.id, true);
        }
        break;
      case 1:
        for (int n = 0; n < 20; ++n) {
          const auto api = f.auth->mint(bob->user.id, "x", TokenKind::api, {"mcp"}, std::nullopt);
          if (api) CHECK(f.repository->revoke_token(bob->user.id, api->row.id));
        }
        break;
      default:
        CHECK(reason(f.auth->login("root@example.test", kPassword, from)) == "ok");
        CHECK(reason(f.auth->login("root@example.test", "wrong password", from)) == "invalid_credentials");
    }
  });
  stop = true;
  for (auto& reader : readers) reader.join();
  CHECK(reason(f.auth->authenticate_token(bob->token)) == "ok");
}
