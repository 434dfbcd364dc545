// A Storage whose records are the host's. Watching is done here: what this process commits is known, what
// others commit the host tells.
#include "storage.hpp"

#include "mcpgw/random.hpp"
#include "storage/change_feed.hpp"
#include "storage/record_rules.hpp"

namespace mcpgw::capi {

namespace {

Error damaged() {
  return {ErrorCode::data_loss, "storage_damaged",
          "The storage callback's answer has not the form that is agreed on"};
}

std::optional<std::uint64_t> number(const Json& value) {
  if (!value.is_number_integer() && !value.is_number_unsigned()) return std::nullopt;
  if (!value.is_number_unsigned() && value.get<std::int64_t>() < 0) return std::nullopt;
  return value.get<std::uint64_t>();
}

std::optional<std::string> text(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_string()) return std::nullopt;
  return found->get<std::string>();
}

std::optional<Record> read_record(const Json& object) {
  if (!object.is_object()) return std::nullopt;
  auto collection = text(object, "collection"), key = text(object, "key"), value = text(object, "value");
  const auto at = object.find("version");
  const std::uint64_t version = at == object.end() ? 0 : number(*at).value_or(0);
  if (!collection || !key || !value || version == 0) return std::nullopt;
  return Record{std::move(*collection), std::move(*key), std::move(*value), version};
}

/// Where the error of a callback has no reason of its own, the one that Storage promises.
const char* reason_of(mcpgw_status status) {
  switch (status) {
    case MCPGW_CONFLICT:
      return "version_conflict";
    case MCPGW_DATA_LOSS:
      return "storage_damaged";
    case MCPGW_INVALID_ARGUMENT:
      return "invalid_argument";
    default:
      return "storage_unavailable";
  }
}

}  // namespace

class CallbackStorage final : public Storage {
 public:
  explicit CallbackStorage(const mcpgw_storage_callbacks& callbacks) : host_(callbacks) {}

  Result<std::optional<Record>> get(std::string_view collection, std::string_view key) override {
    if (auto fine = detail::check_name(collection, key); !fine) return fine.error();
    mcpgw_reply reply;
    const auto status =
        host_->get(host_->user_data, collection.data(), collection.size(), key.data(), key.size(), &reply);
    if (status != MCPGW_OK) return error_of(status, reply, reason_of(status));
    const auto answer = detail::parse_json(reply.text);
    if (!answer) return damaged();
    if (answer->is_null()) return std::optional<Record>();
    auto record = read_record(*answer);
    if (!record || record->collection != collection || record->key != key) return damaged();
    return record;
  }

  Result<std::vector<Record>> list(std::string_view collection, std::string_view prefix,
                                   std::string_view after, std::size_t limit) override {
    mcpgw_reply reply;
    const auto status = host_->list(host_->user_data, collection.data(), collection.size(), prefix.data(),
                                    prefix.size(), after.data(), after.size(), limit, &reply);
    if (status != MCPGW_OK) return error_of(status, reply, reason_of(status));
    const auto answer = detail::parse_json(reply.text);
    if (!answer || !answer->is_array() || (limit != 0 && answer->size() > limit)) return damaged();
    std::vector<Record> out;
    out.reserve(answer->size());
    std::string last(after);
    for (const Json& element : *answer) {
      auto record = read_record(element);
      // An unsorted page would make whoever reads on from its last key miss records.
      if (!record || record->collection != collection || record->key <= last ||
          record->key.compare(0, prefix.size(), prefix) != 0)
        return damaged();
      last = record->key;
      out.push_back(std::move(*record));
    }
    return out;
  }

  Result<std::vector<std::uint64_t>> commit(const std::vector<Operation>& operations) override {
    if (auto fine = check_operations(operations); !fine) return fine.error();
    Json list = Json::array();
    for (const Operation& operation : operations) {
      Json one{{"collection", operation.collection}, {"key", operation.key}};
      one["op"] = operation.kind == Operation::Kind::put     ? "put"
                  : operation.kind == Operation::Kind::erase ? "erase"
                                                             : "check";
      if (operation.kind == Operation::Kind::put) one["value"] = operation.value;
      if (operation.expected_version) one["expected_version"] = *operation.expected_version;
      list.push_back(std::move(one));
    }
    const std::string message = detail::dump_json(list);
    std::optional<std::vector<std::uint64_t>> versions;
    std::uint64_t ticket = 0;
    {
      // Held during the callback, since changes are told in the order of the commits.
      const std::lock_guard in_order(commits_);
      mcpgw_reply reply;
      const auto status = host_->commit(host_->user_data, message.data(), message.size(), &reply);
      if (status != MCPGW_OK) return error_of(status, reply, reason_of(status));
      std::vector<Change> changes;
      versions = read_versions(reply.text, operations, changes);
      // Without an answer that can be read nobody knows what was written: whoever watches reads it all again.
      if (!versions) changes.clear();
      if (versions && changes.empty()) return *versions;
      ticket = feed_.enqueue(detail::last_changes(std::move(changes)));
    }
    feed_.deliver(ticket);
    if (!versions) return damaged();
    return *versions;
  }

  std::uint64_t watch(WatchCallback callback) override { return feed_.add(std::move(callback)); }
  void unwatch(std::uint64_t id) override { feed_.remove(id); }

  Status ping() override {
    if (host_->ping == nullptr) return {};
    mcpgw_reply reply;
    const auto status = host_->ping(host_->user_data, &reply);
    if (status != MCPGW_OK) return error_of(status, reply, reason_of(status));
    return {};
  }

  Status changed(std::string_view json) {
    const auto list = detail::parse_json(json);
    if (!list || !list->is_array()) return invalid("invalid_changes", "The changes must be a JSON array");
    std::vector<Change> changes;
    for (const Json& element : *list) {
      if (!element.is_object()) return invalid("invalid_changes", "A change must be an object");
      auto collection = text(element, "collection"), key = text(element, "key");
      const auto at = element.find("version");
      const auto version = at == element.end() ? std::nullopt : number(*at);
      if (!collection || !key || !version)
        return invalid("invalid_changes", "A change has a collection, a key and a version");
      changes.push_back({std::move(*collection), std::move(*key), *version});
    }
    feed_.deliver(feed_.enqueue(std::move(changes)));
    return {};
  }

 private:
  static std::optional<std::vector<std::uint64_t>> read_versions(std::string_view reply,
                                                                 const std::vector<Operation>& operations,
                                                                 std::vector<Change>& changes) {
    const auto answer = detail::parse_json(reply);
    if (!answer || !answer->is_array() || answer->size() != operations.size()) return std::nullopt;
    std::vector<std::uint64_t> out;
    for (std::size_t i = 0; i < operations.size(); ++i) {
      const Operation& operation = operations[i];
      const bool found_none = (*answer)[i].is_null() && operation.kind == Operation::Kind::erase;
      const auto version = found_none ? std::optional<std::uint64_t>(0) : number((*answer)[i]);
      if (!version || (*version != 0) != (operation.kind == Operation::Kind::put)) return std::nullopt;
      if (operation.kind != Operation::Kind::check && !found_none)
        changes.push_back({operation.collection, operation.key, *version});
      out.push_back(*version);
    }
    return out;
  }

  const Host<mcpgw_storage_callbacks> host_;
  std::mutex commits_;  // orders commits
  detail::ChangeFeed feed_;
};

std::string make_up_key() {
  std::string out(32, '\0');
  make_system_random()->fill(out.data(), out.size());
  return out;
}

}  // namespace mcpgw::capi

using namespace mcpgw;
using namespace mcpgw::capi;

mcpgw_status mcpgw_storage_create(const mcpgw_storage_callbacks* callbacks, mcpgw_storage** out,
                                  char** out_error) {
  if (out != nullptr) *out = nullptr;
  return guard(out_error, [&]() -> Status {
    mcpgw_storage_callbacks given;
    if (out == nullptr || !read_struct(callbacks, offsetof(mcpgw_storage_callbacks, ping), given) ||
        given.get == nullptr || given.list == nullptr || given.commit == nullptr)
      return invalid("invalid_callbacks", "A storage needs struct_size, get, list and commit");
    auto handle = std::make_unique<mcpgw_storage>();
    handle->callbacks = std::make_shared<CallbackStorage>(given);
    handle->storage = handle->callbacks;
    *out = handle.release();
    return {};
  });
}

mcpgw_status mcpgw_storage_create_memory(mcpgw_storage** out, char** out_error) {
  if (out != nullptr) *out = nullptr;
  return guard(out_error, [&]() -> Status {
    if (out == nullptr) return invalid("invalid_argument", "out must not be NULL");
    auto handle = std::make_unique<mcpgw_storage>();
    handle->storage = make_memory_storage();
    handle->made_up_key = make_up_key();
    *out = handle.release();
    return {};
  });
}

mcpgw_status mcpgw_storage_changed(mcpgw_storage* storage, const char* changes, size_t size,
                                   char** out_error) {
  return guard(out_error, [&]() -> Status {
    if (storage == nullptr) return invalid("invalid_argument", "storage must not be NULL");
    if (!storage->callbacks)
      return Error(ErrorCode::unsupported, "unsupported", "This storage is not the host's");
    return storage->callbacks->changed(view(changes, size));
  });
}

void mcpgw_storage_free(mcpgw_storage* storage) { delete storage; }
