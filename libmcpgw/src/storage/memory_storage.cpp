#include <algorithm>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "mcpgw/storage.hpp"
#include "storage/change_feed.hpp"
#include "storage/record_rules.hpp"

namespace mcpgw {
namespace {

class MemoryStorage final : public Storage {
 public:
  bool durable() const override { return false; }

  Result<std::optional<Record>> get(std::string_view collection, std::string_view key) override {
    if (auto ok = detail::check_name(collection, key); !ok) return ok.error();
    std::shared_lock lock(mutex_);
    const Entry* entry = find(collection, key);
    if (!entry) return std::optional<Record>{};
    return std::optional<Record>{
        Record{std::string(collection), std::string(key), entry->value, entry->version}};
  }

  Result<std::vector<Record>> list(std::string_view collection, std::string_view prefix,
                                   std::string_view after, std::size_t limit) override {
    std::vector<Record> found;
    std::shared_lock lock(mutex_);
    const auto records = collections_.find(collection);
    if (records == collections_.end()) return found;
    // std::string compares as unsigned bytes: the order the interface promises.
    auto at = after >= prefix && !after.empty() ? records->second.upper_bound(after)
                                                : records->second.lower_bound(prefix);
    for (; at != records->second.end() && at->first.compare(0, prefix.size(), prefix) == 0; ++at) {
      if (limit != 0 && found.size() == limit) break;
      found.push_back({std::string(collection), at->first, at->second.value, at->second.version});
    }
    return found;
  }

  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) override {
    if (auto ok = check_operations(operations); !ok) return ok.error();
    std::vector<std::uint64_t> versions;
    std::uint64_t ticket = 0;
    {
      std::unique_lock lock(mutex_);
      for (const auto& operation : operations) {
        if (!operation.expected_version) continue;
        const Entry* entry = find(operation.collection, operation.key);
        if ((entry ? entry->version : 0) != *operation.expected_version)
          return detail::version_conflict(operation);
      }
      std::vector<Change> changes;
      versions.reserve(operations.size());
      for (const auto& operation : operations) versions.push_back(apply(operation, changes));
      if (changes.empty()) return versions;
      ticket = feed_.enqueue(detail::last_changes(std::move(changes)));
    }
    feed_.deliver(ticket);
    return versions;
  }

  std::uint64_t watch(WatchCallback callback) override { return feed_.add(std::move(callback)); }
  void unwatch(std::uint64_t id) override { feed_.remove(id); }
  Status ping() override { return {}; }

 private:
  struct Entry {
    std::string value;
    std::uint64_t version = 0;
  };
  using Entries = std::map<std::string, Entry, std::less<>>;

  // Versions of erased records, so that one made again continues where it ended. Beyond this many they are
  // folded into one floor for all new records.
  static constexpr std::size_t kMaxTombstones = 10000;

  const Entry* find(std::string_view collection, std::string_view key) const {
    const auto records = collections_.find(collection);
    if (records == collections_.end()) return nullptr;
    const auto entry = records->second.find(key);
    return entry == records->second.end() ? nullptr : &entry->second;
  }

  std::uint64_t apply(const Operation& operation, std::vector<Change>& changes) {
    if (operation.kind == Operation::Kind::check) return 0;
    Entries& records = collections_[operation.collection];
    auto at = records.find(operation.key);
    if (operation.kind == Operation::Kind::put) {
      if (at == records.end())
        at = records.emplace(operation.key, Entry{{}, last_version(operation.collection, operation.key)})
                 .first;
      at->second.value = operation.value;
      ++at->second.version;
      changes.push_back({operation.collection, operation.key, at->second.version});
      return at->second.version;
    }
    if (at == records.end()) return 0;
    tombstones_[{operation.collection, operation.key}] = at->second.version;
    records.erase(at);
    if (tombstones_.size() > kMaxTombstones) {
      for (const auto& [name, version] : tombstones_) floor_ = std::max(floor_, version);
      tombstones_.clear();
    }
    changes.push_back({operation.collection, operation.key, 0});
    return 0;
  }

  std::uint64_t last_version(const std::string& collection, const std::string& key) {
    auto version = floor_;
    if (const auto grave = tombstones_.find({collection, key}); grave != tombstones_.end()) {
      version = std::max(version, grave->second);
      tombstones_.erase(grave);
    }
    return version;
  }

  std::shared_mutex mutex_;  // protects the members up to floor_ and the order of enqueue()
  std::map<std::string, Entries, std::less<>> collections_;
  std::map<std::pair<std::string, std::string>, std::uint64_t> tombstones_;
  std::uint64_t floor_ = 0;
  detail::ChangeFeed feed_;
};

}  // namespace

std::shared_ptr<Storage> make_memory_storage() { return std::make_shared<MemoryStorage>(); }

}  // namespace mcpgw
