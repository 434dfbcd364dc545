#include "postgres/record_core.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "postgres/schema.hpp"
#include "storage/record_rules.hpp"

namespace mcpgw::detail::postgres {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// A server that vanished without a word is noticed by a look now and then, which also finds what was
// announced to nobody.
constexpr milliseconds kLookInterval{5000};
constexpr std::chrono::hours kPurgeInterval{1};
constexpr milliseconds kFirstPause{50};
constexpr milliseconds kLongestPause{1000};

}  // namespace

Core::Core(std::shared_ptr<Pool> pool)
    : pool_(std::move(pool)), stop_event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

Core::~Core() {
  if (stop_event_ >= 0) ::close(stop_event_);
}

Status Core::start() {
  if (stop_event_ < 0)
    return Error{ErrorCode::resource_exhausted, "no_descriptors", "The system has no descriptor left."};
  const auto deadline = pool_->call_deadline();
  auto started = with_connection<bool>(*pool_, deadline, [&](Connection& connection) -> Result<bool> {
    if (auto ok = migrate(connection, deadline); !ok) return ok.error();
    if (auto ok = log_.start(connection, deadline); !ok) return ok.error();
    return true;
  });
  if (!started) return started.error();
  return {};
}

WriteTurns::Turn Core::take_turn() { return write_turns_.take(pool_->info().call_timeout); }

std::uint64_t Core::enqueue(RecordLog::Commits& commits) {
  std::uint64_t ticket = 0;
  for (auto& changes : commits) ticket = feed_.enqueue(std::move(changes));
  commits.clear();
  return ticket;
}

Result<std::vector<std::uint64_t>> Core::commit(const std::vector<Operation>& operations) {
  std::uint64_t ticket = 0;
  const auto turn_taken = [&]() -> Result<std::vector<std::uint64_t>> {
    const auto turn = take_turn();
    if (!turn) return storage_unavailable();
    RecordLog::Commits others;
    auto outcome = write(operations, pool_->call_deadline(), others);
    // Commits of others precede this one: the watchers hear of them first, whatever became of it.
    ticket = enqueue(others);
    if (!outcome) return outcome.error();
    if (!outcome->changes.empty()) ticket = feed_.enqueue(std::move(outcome->changes));
    return std::move(outcome->versions);
  };
  auto result = turn_taken();
  if (ticket != 0) feed_.deliver(ticket);
  return result;
}

Result<RecordLog::Outcome> Core::write(const std::vector<Operation>& operations, Deadline deadline,
                                       RecordLog::Commits& others) {
  std::int64_t token = 0;
  random_->fill(&token, sizeof token);
  for (int attempt = 0;; ++attempt) {
    std::optional<Result<RecordLog::Outcome>> outcome;
    bool fate_open = false;
    {
      auto lease = pool_->take(deadline);
      if (!lease) return lease.error();
      outcome = log_.write(**lease, deadline, operations, token, others, fate_open);
      if (*outcome || !(*lease)->broken()) return std::move(*outcome);
    }
    if (fate_open) {
      const auto committed = resolve(token, deadline);
      if (!committed) return committed.error();
      if (*committed) return log_.take_open();
    }
    if (attempt == 1) return std::move(*outcome);  // a server that answered twice and broke twice
  }
}

/// The connection broke while the commit was on its way: asks until the server is back or the time is over.
Result<bool> Core::resolve(std::int64_t token, Deadline deadline) {
  for (;;) {
    {
      auto lease = pool_->take(deadline);
      auto committed = lease ? log_.was_committed(**lease, deadline, token) : Result<bool>(lease.error());
      if (committed || steady_clock::now() >= deadline) return committed;
    }
    pollfd stop{stop_event_, POLLIN, 0};
    if (::poll(&stop, 1, static_cast<int>(kFirstPause.count())) > 0) return storage_unavailable();
  }
}

Status Core::read_others(Connection& connection) {
  std::uint64_t ticket = 0;
  const auto read = [&]() -> Status {
    const auto turn = take_turn();
    if (!turn) return storage_unavailable();
    RecordLog::Commits others;
    auto ok = log_.read_others(connection, pool_->call_deadline(), others);
    ticket = enqueue(others);
    return ok;
  };
  auto result = read();
  if (ticket != 0) feed_.deliver(ticket);
  return result;
}

bool Core::stopped() const {
  pollfd stop{stop_event_, POLLIN, 0};
  return ::poll(&stop, 1, 0) > 0;
}

void Core::stop() {
  const std::uint64_t one = 1;
  (void)!::write(stop_event_, &one, sizeof one);
}

void Core::listen() {
  auto pause = kFirstPause;
  while (!stopped()) {
    const auto begun = steady_clock::now();
    (void)listen_once();  // it returns when the connection is lost
    pause = steady_clock::now() - begun > kLookInterval ? kFirstPause : std::min(pause * 2, kLongestPause);
    pollfd stop{stop_event_, POLLIN, 0};
    (void)::poll(&stop, 1, static_cast<int>(pause.count()));
  }
}

Status Core::listen_once() {
  auto connection = Connection::open(pool_->info(), pool_->call_deadline());
  if (!connection) return connection.error();
  pool_->server_is_back();
  (*connection)->send_text(std::string("LISTEN ") + kChannel);
  if (auto ok = (*connection)->run(pool_->call_deadline()); !ok) return ok.error();
  auto next_purge = steady_clock::now() + kLookInterval;
  bool look = true;  // whatever was announced while nobody listened
  while (!stopped()) {
    if (look)
      if (auto ok = read_others(**connection); !ok && (*connection)->broken()) return ok;
    if (steady_clock::now() >= next_purge) {
      (void)log_.purge(**connection, pool_->call_deadline());  // on failure: again in an hour
      if ((*connection)->broken()) return storage_unavailable();
      next_purge = steady_clock::now() + kPurgeInterval;
    }
    const auto next_look = steady_clock::now() + kLookInterval;
    if (auto ok = (*connection)->wait_for_notice(stop_event_, next_look); !ok) return ok;
    look = steady_clock::now() >= next_look;
    for (const auto& payload : (*connection)->take_notifications()) {
      std::int64_t seq = 0;
      std::from_chars(payload.data(), payload.data() + payload.size(), seq);
      look = look || seq > log_.seen();  // ours have been told already
    }
  }
  return {};
}

}  // namespace mcpgw::detail::postgres
