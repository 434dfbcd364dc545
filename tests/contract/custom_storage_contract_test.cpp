// The storage of examples/custom_storage keeps the contract: the example can be trusted.
#include "contract/temp_dir.hpp"
#include "custom_storage/journal_storage.hpp"

struct Journal {  // made anew for each case, empty
  mcpgw::contract::TempDir directory;
  std::shared_ptr<mcpgw::Storage> storage = *JournalStorage::open(directory.file("records.journal"));
};

#define MCPGW_STORAGE_BACKEND Journal
#include "contract/storage_contract.hpp"

TEST_CASE("journal: whole commits survive, torn ones vanish") {
  using namespace mcpgw::contract;
  TempDir directory;
  const auto path = directory.file("records.journal");
  {
    auto storage = *JournalStorage::open(path);
    must(storage->put("c", "a", "1\n.\n"));
    must(storage->put("c", "gone", "1"));
    must_ok(storage->erase("c", "gone"));
    must(storage->commit({{Kind::put, "c", "x", "1", 0}, {Kind::put, "c", "y", "1", 0}}));
  }
  const auto whole = std::filesystem::file_size(path);
  std::filesystem::resize_file(path, whole - 1);
  auto storage = *JournalStorage::open(path);
  CHECK(keys_of(*storage, "c", "", "", 0) == std::vector<std::string>{"a"});
  CHECK(must(storage->get("c", "a"))->value == "1\n.\n");
  CHECK(must(storage->put("c", "gone", "2", 0)) == 2);
  storage = *JournalStorage::open(path);
  CHECK(must(storage->get("c", "gone"))->value == "2");
}
