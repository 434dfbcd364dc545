// A storage of the host, behind the callbacks of mcpgw.h, keeps the contract when the host does; a host that
// does not is found out.
#include <atomic>

#include "json/json.hpp"
#include "storage.hpp"

namespace {

using mcpgw::Storage;
using mcpgw::detail::Json;

/// A host that keeps its records in mcpgw's own memory storage and speaks JSON, as one in another language
/// would.
struct JsonHost {
  std::shared_ptr<Storage> inner = mcpgw::make_memory_storage();
  std::atomic<int>* destroyed = nullptr;
  std::string rubbish;  ///< what every callback answers with instead

  static Json json(const mcpgw::Record& record) {
    return {{"collection", record.collection},
            {"key", record.key},
            {"value", record.value},
            {"version", record.version}};
  }
  static mcpgw_status answer(mcpgw_reply* reply, const Json& value) {
    const std::string text = value.dump();
    mcpgw_reply_set(reply, text.data(), text.size());
    return MCPGW_OK;
  }
  static mcpgw_status fail(mcpgw_reply* reply, const mcpgw::Error& error) {
    answer(reply, {{"reason", error.reason}, {"message", error.message}, {"field", error.field}});
    return static_cast<mcpgw_status>(static_cast<int>(error.code) + 1);
  }
  bool spoiled(mcpgw_reply* reply) const {
    if (rubbish.empty()) return false;
    mcpgw_reply_set(reply, rubbish.data(), rubbish.size());
    return true;
  }

  static mcpgw_status get(void* host, const char* collection, size_t collection_size, const char* key,
                          size_t key_size, mcpgw_reply* reply) {
    auto& self = *static_cast<JsonHost*>(host);
    if (self.spoiled(reply)) return MCPGW_OK;
    auto found = self.inner->get({collection, collection_size}, {key, key_size});
    if (!found) return fail(reply, found.error());
    return answer(reply, *found ? json(**found) : Json());
  }
  static mcpgw_status list(void* host, const char* collection, size_t collection_size, const char* prefix,
                           size_t prefix_size, const char* after, size_t after_size, uint64_t limit,
                           mcpgw_reply* reply) {
    auto& self = *static_cast<JsonHost*>(host);
    if (self.spoiled(reply)) return MCPGW_OK;
    auto found =
        self.inner->list({collection, collection_size}, {prefix, prefix_size}, {after, after_size}, limit);
    if (!found) return fail(reply, found.error());
    Json out = Json::array();
    for (const auto& record : *found) out.push_back(json(record));
    return answer(reply, out);
  }
  static mcpgw_status commit(void* host, const char* text, size_t size, mcpgw_reply* reply) {
    auto& self = *static_cast<JsonHost*>(host);
    if (self.spoiled(reply)) return MCPGW_OK;
    std::vector<mcpgw::Operation> operations;
    std::vector<bool> finds_nothing;
    const Json list = Json::parse(std::string_view(text, size));
    for (const Json& one : list) {
      mcpgw::Operation operation;
      const auto op = one.at("op").get<std::string>();
      operation.kind = op == "put"     ? mcpgw::Operation::Kind::put
                       : op == "erase" ? mcpgw::Operation::Kind::erase
                                       : mcpgw::Operation::Kind::check;
      operation.collection = one.at("collection").get<std::string>();
      operation.key = one.at("key").get<std::string>();
      operation.value = one.value("value", "");
      if (one.contains("expected_version"))
        operation.expected_version = one.at("expected_version").get<std::uint64_t>();
      operations.push_back(std::move(operation));
    }
    // What an erase finds is known only to a watcher of this storage.
    std::vector<mcpgw::Change> changes;
    const auto watch = self.inner->watch([&](const std::vector<mcpgw::Change>& told) { changes = told; });
    auto made = self.inner->commit(operations);
    self.inner->unwatch(watch);
    if (!made) return fail(reply, made.error());
    Json out = Json::array();
    for (std::size_t i = 0; i < operations.size(); ++i) {
      const auto& operation = operations[i];
      bool told = false;
      for (const auto& change : changes)
        told = told || (change.collection == operation.collection && change.key == operation.key);
      if (operation.kind == mcpgw::Operation::Kind::erase && !told)
        out.push_back(nullptr);
      else
        out.push_back((*made)[i]);
    }
    return answer(reply, out);
  }
  static mcpgw_status ping(void* host, mcpgw_reply* reply) {
    const auto up = static_cast<JsonHost*>(host)->inner->ping();
    return up ? MCPGW_OK : fail(reply, up.error());
  }
  static void destroy(void* host) {
    auto* self = static_cast<JsonHost*>(host);
    if (self->destroyed != nullptr) ++*self->destroyed;
    delete self;
  }

  static mcpgw_storage_callbacks callbacks(JsonHost* host) {
    mcpgw_storage_callbacks out{};
    out.struct_size = sizeof out;
    out.user_data = host;
    out.destroy = destroy;
    out.get = get;
    out.list = list;
    out.commit = commit;
    out.ping = ping;
    return out;
  }
};

struct Handle {
  explicit Handle(JsonHost* host) {
    const auto callbacks = JsonHost::callbacks(host);
    char* error = nullptr;
    if (mcpgw_storage_create(&callbacks, &handle, &error) != MCPGW_OK) throw std::runtime_error(error);
  }
  ~Handle() { mcpgw_storage_free(handle); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  mcpgw_storage* handle = nullptr;
};

}  // namespace

struct CallbackBackend {
  Handle handle{new JsonHost};
  std::shared_ptr<Storage> storage = handle.handle->storage;
};

#define MCPGW_STORAGE_BACKEND CallbackBackend
#include "contract/storage_contract.hpp"

TEST_CASE("callbacks: user_data ends once, with the last user") {
  std::atomic<int> destroyed = 0;
  auto* host = new JsonHost;
  host->destroyed = &destroyed;
  std::shared_ptr<Storage> kept;
  {
    Handle handle(host);
    kept = handle.handle->storage;
  }
  CHECK(destroyed == 0);
  kept.reset();
  CHECK(destroyed == 1);
}

TEST_CASE("callbacks: an answer without the agreed form is damage, not data") {
  using namespace mcpgw::contract;
  auto* host = new JsonHost;
  Handle handle(host);
  auto& storage = *handle.handle->storage;
  must(storage.put("c", "a", "1"));
  for (const char* rubbish :
       {"", "{", "7", "\"x\"", "{}", R"([{}])", R"({"collection":"c","key":"b","value":"1","version":1})",
        R"({"collection":"c","key":"a","value":"1","version":0})",
        R"({"collection":"c","key":"a","value":1,"version":1})",
        R"({"collection":"c","key":"a","value":"1","version":-1})",
        R"([{"collection":"c","key":"a","value":"1"}])"}) {
    CAPTURE(rubbish);
    host->rubbish = rubbish;
    if (*rubbish == '\0') continue;
    check_error(storage.get("c", "a"), mcpgw::ErrorCode::data_loss, "storage_damaged");
    check_error(storage.list("c", "", "", 0), mcpgw::ErrorCode::data_loss, "storage_damaged");
    check_error(storage.put("c", "a", "2"), mcpgw::ErrorCode::data_loss, "storage_damaged");
  }
  // Unsorted, doubled, outside of what was asked for, and more than was asked for.
  const std::string a = R"({"collection":"c","key":"a","value":"1","version":1})";
  const std::string b = R"({"collection":"c","key":"b","value":"1","version":1})";
  host->rubbish = "[" + b + "," + a + "]";
  check_error(storage.list("c", "", "", 0), mcpgw::ErrorCode::data_loss, "storage_damaged");
  host->rubbish = "[" + a + "," + a + "]";
  check_error(storage.list("c", "", "", 0), mcpgw::ErrorCode::data_loss, "storage_damaged");
  host->rubbish = "[" + a + "]";
  check_error(storage.list("c", "b", "", 0), mcpgw::ErrorCode::data_loss, "storage_damaged");
  check_error(storage.list("c", "", "a", 0), mcpgw::ErrorCode::data_loss, "storage_damaged");
  host->rubbish = "[" + a + "," + b + "]";
  check_error(storage.list("c", "", "", 1), mcpgw::ErrorCode::data_loss, "storage_damaged");
  CHECK(must(storage.list("c", "", "", 2)).size() == 2);
}

TEST_CASE("callbacks: a commit whose answer cannot be read makes watchers read everything again") {
  auto* host = new JsonHost;
  Handle handle(host);
  mcpgw::contract::ChangeLog log;
  const auto id = handle.handle->storage->watch(log.callback());
  host->rubbish = "[1,2]";
  CHECK_FALSE(handle.handle->storage->put("c", "a", "1").has_value());
  handle.handle->storage->unwatch(id);
  REQUIRE(log.commits().size() == 1);
  CHECK(log.commits()[0].empty());
}

TEST_CASE("callbacks: what the host tells of others reaches watchers") {
  Handle handle(new JsonHost);
  mcpgw::contract::ChangeLog log;
  const auto id = handle.handle->storage->watch(log.callback());
  const std::string changes =
      R"([{"collection":"c","key":"a","version":3},{"collection":"c","key":"b","version":0}])";
  CHECK(mcpgw_storage_changed(handle.handle, changes.data(), changes.size(), nullptr) == MCPGW_OK);
  CHECK(mcpgw_storage_changed(handle.handle, "[]", 2, nullptr) == MCPGW_OK);
  for (const char* wrong :
       {"", "{}", "[1]", R"([{"collection":"c"}])", R"([{"collection":"c","key":"a","version":-1}])"})
    CHECK(mcpgw_storage_changed(handle.handle, wrong, std::string(wrong).size(), nullptr) ==
          MCPGW_INVALID_ARGUMENT);
  handle.handle->storage->unwatch(id);
  REQUIRE(log.commits().size() == 2);
  CHECK(log.commits()[0].size() == 2);
  CHECK(log.commits()[0][0].version == 3);
  CHECK(log.commits()[1].empty());

  mcpgw_storage* memory = nullptr;
  REQUIRE(mcpgw_storage_create_memory(&memory, nullptr) == MCPGW_OK);
  CHECK(mcpgw_storage_changed(memory, "[]", 2, nullptr) == MCPGW_UNSUPPORTED);
  mcpgw_storage_free(memory);
}
