// A storage of one's own: records in a std::map, every commit appended to a journal file.
//
// It keeps every promise of mcpgw::Storage, as tests/contract shows, and is as simple as that allows: one
// lock for the records, one for the watchers.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mcpgw/storage.hpp"

class JournalStorage : public mcpgw::Storage {
 public:
  using Operation = mcpgw::Operation;
  using Change = mcpgw::Change;

  static mcpgw::Result<std::shared_ptr<JournalStorage>> open(const std::string& path) {
    auto storage = std::make_shared<JournalStorage>();
    std::ifstream file(path, std::ios::binary);
    const std::string journal((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    storage->size_ = storage->replay(journal);
    storage->fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    // What follows the last whole commit was being written when the program died: nobody was told of it.
    if (storage->fd_ < 0 || ::ftruncate(storage->fd_, storage->size_) != 0) return unavailable();
    return storage;
  }
  ~JournalStorage() override {
    if (fd_ >= 0) ::close(fd_);
  }

  mcpgw::Result<std::optional<mcpgw::Record>> get(std::string_view collection,
                                                  std::string_view key) override {
    std::lock_guard lock(records_mutex_);
    const auto at = records_.find({std::string(collection), std::string(key)});
    if (at == records_.end() || !at->second.value) return std::optional<mcpgw::Record>();
    return std::optional(
        mcpgw::Record{at->first.first, at->first.second, *at->second.value, at->second.version});
  }

  mcpgw::Result<std::vector<mcpgw::Record>> list(std::string_view collection, std::string_view prefix,
                                                 std::string_view after, std::size_t limit) override {
    std::lock_guard lock(records_mutex_);
    std::vector<mcpgw::Record> found;
    // std::string compares byte by byte: the order that is asked for.
    for (auto at = records_.lower_bound({std::string(collection), std::string(std::max(prefix, after))});
         at != records_.end() && at->first.first == collection; ++at) {
      const auto& [name, entry] = *at;
      if (name.second.compare(0, prefix.size(), prefix) != 0 || (limit != 0 && found.size() == limit)) break;
      if (entry.value && (after.empty() || name.second > after))
        found.push_back({name.first, name.second, *entry.value, entry.version});
    }
    return found;
  }

  mcpgw::Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) override {
    if (auto ok = mcpgw::check_operations(operations); !ok) return ok.error();
    std::lock_guard order(watchers_mutex_);  // from the write to the last watcher: told in commit order
    std::vector<std::uint64_t> versions;
    std::map<Name, Entry> written;
    std::vector<Change> changes;
    {
      std::lock_guard lock(records_mutex_);
      for (const auto& operation : operations)
        if (operation.expected_version && version_of(operation) != *operation.expected_version)
          return mcpgw::Error{mcpgw::ErrorCode::conflict, "version_conflict",
                              "The record was changed meanwhile.",
                              operation.collection + "/" + operation.key};
      for (const auto& operation : operations) versions.push_back(apply(operation, written));
      if (written.empty()) return versions;
      if (!append(written)) return unavailable();  // before memory: a failure leaves both as they were
      for (auto& [name, entry] : written) {
        changes.push_back({name.first, name.second, entry.value ? entry.version : 0});
        records_[name] = std::move(entry);
      }
    }
    tell(changes);
    return versions;
  }

  std::uint64_t watch(WatchCallback callback) override {
    std::lock_guard lock(watchers_mutex_);
    watchers_[++last_watcher_] = std::make_shared<WatchCallback>(std::move(callback));
    return last_watcher_;
  }
  void unwatch(std::uint64_t id) override {
    // Waits for running callbacks; recursive, so that a callback may end its own watch.
    std::lock_guard lock(watchers_mutex_);
    watchers_.erase(id);
  }

  mcpgw::Status ping() override { return {}; }

 private:
  using Name = std::pair<std::string, std::string>;
  struct Entry {
    std::optional<std::string> value;  // nullopt: erased; the entry stays, for its version must go on
    std::uint64_t version = 0;
  };

  static mcpgw::Error unavailable() {
    return {mcpgw::ErrorCode::unavailable, "storage_unavailable", "The journal cannot be written."};
  }

  std::uint64_t version_of(const Operation& operation) const {
    const auto at = records_.find({operation.collection, operation.key});
    return at == records_.end() || !at->second.value ? 0 : at->second.version;
  }

  std::uint64_t apply(const Operation& operation, std::map<Name, Entry>& written) const {
    if (operation.kind == Operation::Kind::check) return 0;
    const Name name{operation.collection, operation.key};
    const auto stored = records_.find(name);
    const auto draft = written.find(name);
    Entry entry = draft != written.end()     ? draft->second
                  : stored != records_.end() ? stored->second
                                             : Entry{};
    if (operation.kind == Operation::Kind::put) {
      entry.value = operation.value;
      ++entry.version;
    } else if (!std::exchange(entry.value, std::nullopt)) {
      return 0;  // nothing there to erase
    }
    const auto version = entry.value ? entry.version : 0;
    written[name] = std::move(entry);
    return version;
  }

  // A commit is "<entries>\n", as many "<version> <three sizes>\n<collection><key><value>", and ".\n". The
  // size of an erased record's value is -1.
  bool append(const std::map<Name, Entry>& written) {
    std::ostringstream text;
    text << written.size() << '\n';
    for (const auto& [name, entry] : written)
      text << entry.version << ' ' << name.first.size() << ' ' << name.second.size() << ' '
           << (entry.value ? static_cast<long long>(entry.value->size()) : -1) << '\n'
           << name.first << name.second << entry.value.value_or("");
    text << ".\n";
    const std::string bytes = text.str();
    // What a failed write left must not follow the next commit.
    if (torn_ && ::ftruncate(fd_, size_) != 0) return false;
    torn_ = true;
    for (std::size_t done = 0; done < bytes.size();) {
      const auto n =
          ::pwrite(fd_, bytes.data() + done, bytes.size() - done, size_ + static_cast<off_t>(done));
      if (n <= 0) return false;
      done += static_cast<std::size_t>(n);
    }
    if (::fdatasync(fd_) != 0) return false;
    torn_ = false;
    size_ += static_cast<off_t>(bytes.size());
    return true;
  }

  // Reads whole commits; returns where the last of them ends.
  off_t replay(const std::string& journal) {
    std::istringstream in(journal);
    off_t end = 0;
    for (std::size_t count = 0; in >> count && in.get() == '\n';) {
      std::map<Name, Entry> commit;
      for (; count > 0; --count) {
        Entry entry;
        std::size_t collection = 0, key = 0;
        long long value = 0;
        if (!(in >> entry.version >> collection >> key >> value) || in.get() != '\n') return end;
        const auto left = journal.size() - static_cast<std::size_t>(in.tellg());
        const auto size = static_cast<std::size_t>(value < 0 ? 0 : value);
        if (collection > left || key > left || size > left || collection + key + size > left) return end;
        Name name{std::string(collection, '\0'), std::string(key, '\0')};
        std::string text(size, '\0');
        in.read(name.first.data(), static_cast<std::streamsize>(collection));
        in.read(name.second.data(), static_cast<std::streamsize>(key));
        in.read(text.data(), static_cast<std::streamsize>(size));
        if (value >= 0) entry.value = std::move(text);
        commit[std::move(name)] = std::move(entry);
      }
      if (in.get() != '.' || in.get() != '\n') return end;
      for (auto& [name, entry] : commit) records_[name] = std::move(entry);
      end = static_cast<off_t>(in.tellg());
    }
    return end;
  }

  void tell(const std::vector<Change>& changes) {
    const auto told = watchers_;  // a callback may end watches
    for (const auto& [id, callback] : told) {
      if (watchers_.count(id) == 0) continue;
      try {
        (*callback)(changes);
      } catch (...) {  // the commit stands
      }
    }
  }

  std::recursive_mutex watchers_mutex_;  // taken before records_mutex_
  std::map<std::uint64_t, std::shared_ptr<WatchCallback>> watchers_;
  std::uint64_t last_watcher_ = 0;

  std::mutex records_mutex_;  // protects the members below
  std::map<Name, Entry> records_;
  int fd_ = -1;
  off_t size_ = 0;     // of the whole commits
  bool torn_ = false;  // the last write failed half-way
};
