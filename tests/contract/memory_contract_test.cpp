// The memory backend keeps the contract.
#include <memory>

#include "mcpgw/audit.hpp"
#include "mcpgw/storage.hpp"

struct Memory {
  std::shared_ptr<mcpgw::Storage> storage = mcpgw::make_memory_storage();
  std::shared_ptr<mcpgw::AuditSink> audit = mcpgw::make_memory_audit_sink(200000);
};

#define MCPGW_STORAGE_BACKEND Memory
#define MCPGW_AUDIT_BACKEND Memory
#include "contract/audit_contract.hpp"
#include "contract/storage_contract.hpp"

TEST_CASE("memory: erased records leave no trace that grows without bound") {
  const auto storage = mcpgw::make_memory_storage();
  using mcpgw::contract::must;
  using mcpgw::contract::must_ok;
  must(storage->put("c", "old", "1"));
  const auto last = must(storage->put("c", "old", "2"));
  must_ok(storage->erase("c", "old"));
  for (int n = 0; n < 10001; ++n) {  // more than it remembers one by one
    must(storage->put("c", std::to_string(n), "1"));
    must_ok(storage->erase("c", std::to_string(n)));
  }
  CHECK(must(storage->put("c", "old", "3")) > last);
}

TEST_CASE("memory: the audit sink keeps the newest rows") {
  const auto audit = mcpgw::make_memory_audit_sink(3);
  for (int n = 0; n < 5; ++n) mcpgw::contract::must_ok(audit->append({mcpgw::contract::audit_row(n)}));
  const auto page = mcpgw::contract::must(audit->query({}));
  REQUIRE(page.records.size() == 3);
  CHECK(page.records[0].id == "id-4");
  CHECK(page.records[2].id == "id-2");
  mcpgw::contract::must_ok(audit->append({mcpgw::contract::audit_row(0)}));  // forgotten, so it is new
  CHECK(mcpgw::contract::must(audit->query({})).records[0].id == "id-0");
}

TEST_CASE("memory: nobody shares it") { CHECK_FALSE(mcpgw::make_memory_storage()->shared()); }
