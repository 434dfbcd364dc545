#include "postgres/record_store.hpp"

#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "postgres/record_core.hpp"
#include "storage/record_rules.hpp"

namespace mcpgw::detail::postgres {
namespace {

constexpr Statement kGet{"get",
                         "SELECT value, version FROM mcpgw_record"
                         " WHERE collection=$1 AND key=$2 AND value IS NOT NULL"};
#define MCPGW_LIST(condition)                                                              \
  "SELECT key, value, version FROM mcpgw_record WHERE collection=$1 AND value IS NOT NULL" \
  " AND " condition " ORDER BY key LIMIT $3::bigint"
constexpr Statement kListFrom{"list_from", MCPGW_LIST("key >= $2")};
constexpr Statement kListAfter{"list_after", MCPGW_LIST("key > $2")};
constexpr Statement kListFromTo{"list_from_to", MCPGW_LIST("key >= $2 AND key < $4")};
constexpr Statement kListAfterTo{"list_after_to", MCPGW_LIST("key > $2 AND key < $4")};
#undef MCPGW_LIST
constexpr Statement kPing{"ping", "SELECT seq FROM mcpgw_state"};
constexpr std::chrono::seconds kPingLimit{3};
constexpr std::size_t kMaxLimit = std::size_t{1} << 40;

/// The least text above all that begin with `prefix`; empty: there is none.
std::string end_of_prefix(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

class RecordStore final : public Storage {
 public:
  explicit RecordStore(std::shared_ptr<Core> core)
      : core_(std::move(core)), listener_([shared = core_] { shared->listen(); }) {}

  ~RecordStore() override {
    core_->stop();
    if (listener_.get_id() == std::this_thread::get_id())
      listener_.detach();  // a watcher dropped the last reference; the thread ends after that callback
    else
      listener_.join();
  }

  Result<std::optional<Record>> get(std::string_view collection, std::string_view key) override {
    using Found = std::optional<Record>;
    if (auto ok = check_name(collection, key); !ok) return ok.error();
    const auto deadline = core_->pool().call_deadline();
    return with_connection<Found>(core_->pool(), deadline, [&](Connection& connection) -> Result<Found> {
      connection.send(kGet, Parameters().add(collection).add(key));
      auto answers = connection.run(deadline);
      if (!answers) return answers.error();
      const auto& rows = answers->front();
      if (rows.rows() == 0) return Found{};
      if (rows.integer(0, 1) < 1) return to_error("XX001");
      return Found{Record{std::string(collection), std::string(key), rows.bytes(0, 0),
                          static_cast<std::uint64_t>(rows.integer(0, 1))}};
    });
  }

  Result<std::vector<Record>> list(std::string_view collection, std::string_view prefix,
                                   std::string_view after, std::size_t limit) override {
    using Found = std::vector<Record>;
    const bool from_after = !after.empty() && after >= prefix;
    const auto end = end_of_prefix(prefix);
    Parameters parameters;
    parameters.add(collection).add(from_after ? after : prefix);
    if (limit == 0 || limit > kMaxLimit)
      parameters.add_null();
    else
      parameters.add(static_cast<std::int64_t>(limit));
    if (!end.empty()) parameters.add(std::string_view(end));
    const auto& statement =
        end.empty() ? (from_after ? kListAfter : kListFrom) : (from_after ? kListAfterTo : kListFromTo);
    const auto deadline = core_->pool().call_deadline();
    return with_connection<Found>(core_->pool(), deadline, [&](Connection& connection) -> Result<Found> {
      connection.send(statement, parameters);
      auto answers = connection.run(deadline);
      if (!answers) return answers.error();
      const auto& rows = answers->front();
      Found found;
      found.reserve(static_cast<std::size_t>(rows.rows()));
      for (int row = 0; row < rows.rows(); ++row) {
        std::string key = rows.bytes(row, 0);
        if (key.compare(0, prefix.size(), prefix) != 0) break;  // a prefix of 0xff bytes has no end
        if (rows.integer(row, 2) < 1) return to_error("XX001");
        found.push_back({std::string(collection), std::move(key), rows.bytes(row, 1),
                         static_cast<std::uint64_t>(rows.integer(row, 2))});
      }
      return found;
    });
  }

  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) override {
    if (auto ok = check_operations(operations); !ok) return ok.error();
    if (operations.empty()) return std::vector<std::uint64_t>{};
    return core_->commit(operations);
  }

  std::uint64_t watch(WatchCallback callback) override { return core_->feed().add(std::move(callback)); }
  void unwatch(std::uint64_t id) override { core_->feed().remove(id); }

  bool shared() const override { return true; }

  Status ping() override {
    const auto deadline = std::chrono::steady_clock::now() + kPingLimit;
    auto answered =
        with_connection<bool>(core_->pool(), deadline, [&](Connection& connection) -> Result<bool> {
          connection.send(kPing);
          auto answers = connection.run(deadline);
          if (!answers) return answers.error();
          return true;
        });
    if (!answered) return answered.error();
    return {};
  }

 private:
  const std::shared_ptr<Core> core_;
  std::thread listener_;
};

}  // namespace

Result<std::shared_ptr<Storage>> open_record_store(std::shared_ptr<Pool> pool) {
  auto core = std::make_shared<Core>(std::move(pool));
  if (auto ok = core->start(); !ok) return ok.error();
  try {
    return std::shared_ptr<Storage>(std::make_shared<RecordStore>(std::move(core)));
  } catch (const std::system_error&) {
    return Error{ErrorCode::resource_exhausted, "no_threads",
                 "The system has no thread left for the storage."};
  }
}

}  // namespace mcpgw::detail::postgres
