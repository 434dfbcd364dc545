// What every Storage promises, as tests. Used by one file a backend:
//
//   struct MyBackend { std::shared_ptr<mcpgw::Storage> storage; MyBackend(); };  // made for a case: empty
//   #define MCPGW_STORAGE_BACKEND MyBackend
//   #include "contract/storage_contract.hpp"
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "contract/contract_support.hpp"
#include "mcpgw/storage.hpp"

namespace mcpgw::contract {

using Kind = Operation::Kind;

TEST_CASE_TEMPLATE("storage: a record is absent, written, overwritten, erased", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  CHECK_FALSE(must(storage.get("user", "a")).has_value());
  CHECK(must(storage.put("user", "a", R"({"n":1})")) == 1);
  auto record = must(storage.get("user", "a"));
  REQUIRE(record.has_value());
  CHECK(record->collection == "user");
  CHECK(record->key == "a");
  CHECK(record->value == R"({"n":1})");
  CHECK(record->version == 1);

  const auto second = must(storage.put("user", "a", "{}"));
  CHECK(second > 1);
  CHECK(must(storage.get("user", "a"))->version == second);
  CHECK(must(storage.get("user", "a"))->value == "{}");
  CHECK_FALSE(must(storage.get("other", "a")).has_value());

  CHECK(storage.erase("user", "a").has_value());
  CHECK_FALSE(must(storage.get("user", "a")).has_value());
  CHECK(storage.erase("user", "a").has_value());  // nothing there: nothing to do
  CHECK(storage.ping().has_value());
}

TEST_CASE_TEMPLATE("storage: put and erase keep their conditions", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  const auto version = must(storage.put("c", "k", "1", 0));
  check_conflict(storage.put("c", "k", "2", 0), "c/k");
  check_conflict(storage.put("c", "k", "2", version + 1), "c/k");
  check_conflict(storage.put("c", "none", "2", 1), "c/none");
  check_conflict(storage.erase("c", "k", version + 1), "c/k");
  check_conflict(storage.erase("c", "k", 0), "c/k");
  check_conflict(storage.erase("c", "none", 7), "c/none");
  CHECK(must(storage.get("c", "k"))->value == "1");
  const auto next = must(storage.put("c", "k", "2", version));
  check_conflict(storage.put("c", "k", "3", version), "c/k");
  CHECK(storage.erase("c", "none", 0).has_value());
  CHECK(storage.erase("c", "k", next).has_value());
  CHECK_FALSE(must(storage.get("c", "k")).has_value());
}

TEST_CASE_TEMPLATE("storage: a transaction is all or nothing", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  const auto a = must(storage.put("c", "a", "1"));
  const auto b = must(storage.put("c", "b", "1"));

  SUBCASE("the last condition fails: nothing is written") {
    auto failed = storage.commit({{Kind::put, "c", "a", "2", a},
                                  {Kind::put, "c", "new", "2", 0},
                                  {Kind::erase, "c", "b", "", b},
                                  {Kind::check, "d", "missing", "", 1}});
    check_conflict(failed, "d/missing");
    CHECK(must(storage.get("c", "a"))->value == "1");
    CHECK(must(storage.get("c", "a"))->version == a);
    CHECK(must(storage.get("c", "b"))->version == b);
    CHECK_FALSE(must(storage.get("c", "new")).has_value());
  }
  SUBCASE("all hold: all is written, versions come in the order of the operations") {
    auto versions = must(storage.commit({{Kind::check, "d", "missing", "", 0},
                                         {Kind::put, "c", "a", "2", a},
                                         {Kind::erase, "c", "b", "", b},
                                         {Kind::put, "c", "new", "3", std::nullopt}}));
    REQUIRE(versions.size() == 4);
    CHECK(versions[0] == 0);
    CHECK(versions[1] == must(storage.get("c", "a"))->version);
    CHECK(versions[1] > a);
    CHECK(versions[2] == 0);
    CHECK(versions[3] == 1);
    CHECK_FALSE(must(storage.get("c", "b")).has_value());
  }
  SUBCASE("conditions look at the state before the transaction") {
    check_conflict(storage.commit({{Kind::erase, "c", "a", "", a}, {Kind::put, "c", "a", "2", 0}}), "c/a");
    CHECK(must(storage.get("c", "a"))->value == "1");
  }
  SUBCASE("writes to one record are made in order") {
    auto versions = must(storage.commit({{Kind::put, "c", "a", "2", a}, {Kind::put, "c", "a", "3", a}}));
    CHECK(versions[1] > versions[0]);
    CHECK(must(storage.get("c", "a"))->value == "3");
    CHECK(must(storage.get("c", "a"))->version == versions[1]);
    must(storage.commit({{Kind::put, "c", "x", "1", 0}, {Kind::erase, "c", "x", "", 0}}));
    CHECK_FALSE(must(storage.get("c", "x")).has_value());
  }
  SUBCASE("an invalid operation spoils the others") {
    check_error(storage.commit({{Kind::put, "c", "a", "2", a}, {Kind::put, "c", "", "2", {}}}),
                ErrorCode::invalid_argument, "invalid_key");
    CHECK(must(storage.get("c", "a"))->value == "1");
  }
  SUBCASE("no operation is no commit") { CHECK(must(storage.commit({})).empty()); }
}

TEST_CASE_TEMPLATE("storage: a version never comes twice", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  std::uint64_t last = 0;
  for (int round = 0; round < 5; ++round) {
    for (int write = 0; write < 3; ++write) {
      const auto version = must(storage.put("c", "k", std::to_string(round)));
      CHECK(version > last);
      last = version;
    }
    must_ok(storage.erase("c", "k"));
    check_conflict(storage.put("c", "k", "x", last), "c/k");
  }
  // A reader that holds the version from before an erase cannot overwrite what was made since.
  const auto again = must(storage.put("c", "k", "new", 0));
  CHECK(again > last);
  check_conflict(storage.put("c", "k", "stale", last), "c/k");
  check_conflict(storage.erase("c", "k", 1), "c/k");
  // Erased and made again within one transaction.
  must(storage.commit({{Kind::erase, "c", "k", "", again}, {Kind::put, "c", "k", "newer", {}}}));
  CHECK(must(storage.get("c", "k"))->version > again);
}

TEST_CASE_TEMPLATE("storage: list is in byte order, by prefix, paged", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  const std::vector<std::string> keys = {std::string("\0", 1),
                                         std::string("a\0b", 3),
                                         "%",
                                         "%a",
                                         "A",
                                         "Z",
                                         "_",
                                         "_x",
                                         "a",
                                         "a%",
                                         "a%b",
                                         "a*",
                                         "a/",
                                         "a/b",
                                         "a/b/c",
                                         "a?",
                                         "a[b]",
                                         "a\\",
                                         "a_b",
                                         "ab",
                                         "axb",
                                         "b",
                                         "\x7f",
                                         "\xc3\xa4",
                                         "\xc3\xa4/x",
                                         "\xc3\xa9",
                                         "\xe2\x82\xac",
                                         "\xf0\x9f\x98\x80",
                                         "\xf4\x8f\xbf\xbf"};
  for (const auto& key : keys) must(storage.put("list", key, "\"" + std::to_string(key.size()) + "\""));
  must(storage.put("lisu", "a", "1"));
  must(storage.put("lis", "a", "1"));
  std::vector<std::string> sorted = keys;
  std::sort(sorted.begin(), sorted.end(), [](const std::string& x, const std::string& y) {
    return std::lexicographical_compare(x.begin(), x.end(), y.begin(), y.end(), [](char c, char d) {
      return static_cast<unsigned char>(c) < static_cast<unsigned char>(d);
    });
  });
  CHECK(keys_of(storage, "list", "", "", 0) == sorted);
  CHECK(keys_of(storage, "none", "", "", 0).empty());

  for (const std::string& prefix :
       {std::string("a"), std::string("a%"), std::string("a_"), std::string("%"), std::string("_"),
        std::string("a/"), std::string("a["), std::string("a\\"), std::string("a*"), std::string("\xc3"),
        std::string("\xc3\xa4"), std::string("\xf4\x8f\xbf\xbf"), std::string("\xff"), std::string("\0", 1),
        std::string("a\0", 2), std::string("zzz")}) {
    std::vector<std::string> wanted;
    for (const auto& key : sorted)
      if (key.compare(0, prefix.size(), prefix) == 0) wanted.push_back(key);
    CAPTURE(prefix);
    CHECK(keys_of(storage, "list", prefix, "", 0) == wanted);
    for (const std::size_t page : {1, 2, 3, 100}) {  // `after` walks over all of them once
      std::vector<std::string> walked;
      std::string after;
      for (;;) {
        const auto part = keys_of(storage, "list", prefix, after, page);
        CHECK(part.size() <= page);
        walked.insert(walked.end(), part.begin(), part.end());
        if (part.size() < page) break;
        after = part.back();
      }
      CHECK(walked == wanted);
    }
  }
  // `after` need not exist, nor lie within the prefix.
  CHECK(keys_of(storage, "list", "a/", "a/a", 0) == std::vector<std::string>{"a/b", "a/b/c"});
  CHECK(keys_of(storage, "list", "a/", "A", 0) == std::vector<std::string>{"a/", "a/b", "a/b/c"});
  CHECK(keys_of(storage, "list", "a/", "b", 0).empty());
  must_ok(storage.erase("list", "a/b"));
  CHECK(keys_of(storage, "list", "a/", "", 0) == std::vector<std::string>{"a/", "a/b/c"});
  const auto listed = must(storage.list("list", "ab", "", 1));
  REQUIRE(listed.size() == 1);
  CHECK(listed[0].collection == "list");
  CHECK(listed[0].value == "\"2\"");
  CHECK(listed[0].version == 1);
}

TEST_CASE_TEMPLATE("storage: values come back as they were written", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  const std::string big = "\"" + std::string((std::size_t{1} << 20) - 2, 'x') + "\"";
  const std::vector<std::string> values = {
      "null",
      "{}",
      R"({"b":1,"a":2,"b2":1.0,"n":12345678901234567890123,"z":-0.0,"e":1e400})",
      R"("\u0000")",
      R"(  { "spaces" : [ 1 , 2 ] }  )",
      "\"\xf0\x9f\x98\x80 \xe2\x82\xac '\\\"\"",
      "\"'; DROP TABLE record; --\"",
      big};
  for (std::size_t i = 0; i < values.size(); ++i) must(storage.put("value", std::to_string(i), values[i]));
  for (std::size_t i = 0; i < values.size(); ++i)
    CHECK(must(storage.get("value", std::to_string(i)))->value == values[i]);
  const auto all = must(storage.list("value", "", "", 0));
  REQUIRE(all.size() == values.size());
  CHECK(all.back().value == big);
  check_error(storage.put("value", "big", big + " "), ErrorCode::invalid_argument, "value_too_large");
  CHECK_FALSE(must(storage.get("value", "big")).has_value());
}

TEST_CASE_TEMPLATE("storage: names out of bounds are refused", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  const std::string longest(2048, 'k');
  CHECK(must(storage.put(std::string(64, 'c'), longest, "1")) == 1);
  CHECK(must(storage.get(std::string(64, 'c'), longest))->value == "1");
  check_error(storage.put("c", longest + "k", "1"), ErrorCode::invalid_argument, "invalid_key");
  check_error(storage.put("c", "", "1"), ErrorCode::invalid_argument, "invalid_key");
  check_error(storage.put("c", "\xff\xfe", "1"), ErrorCode::invalid_argument, "invalid_key");
  check_error(storage.put("", "k", "1"), ErrorCode::invalid_argument, "invalid_collection");
  check_error(storage.put(std::string(65, 'c'), "k", "1"), ErrorCode::invalid_argument, "invalid_collection");
  const auto nameless = storage.get("c", "");  // an error, or nothing
  CHECK((!nameless || !*nameless));
  check_error(storage.erase("", "k"), ErrorCode::invalid_argument, "invalid_collection");
}

TEST_CASE_TEMPLATE("storage: concurrent increments lose nothing", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  constexpr int kThreads = 8;
  constexpr int kRounds = 25;
  must(storage.put("counter", "n", "0"));
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds;) {
        auto record = storage.get("counter", "n");
        if (!record || !*record) {
          ++failures;
          return;
        }
        // The counter and a proof of it, in one transaction.
        const auto next = std::to_string(std::stoi((*record)->value) + 1);
        auto done = storage.commit({{Kind::put, "counter", "n", next, (*record)->version},
                                    {Kind::put, "proof", next, std::to_string(t), 0}});
        if (done) {
          ++round;
        } else if (done.error().code != ErrorCode::conflict) {
          ++failures;
          return;
        }
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(failures == 0);
  CHECK(must(storage.get("counter", "n"))->value == std::to_string(kThreads * kRounds));
  CHECK(must(storage.list("proof", "", "", 0)).size() == kThreads * kRounds);
}

TEST_CASE_TEMPLATE("storage: readers see whole transactions only", B, MCPGW_STORAGE_BACKEND) {
  B backend;
  Storage& storage = *backend.storage;
  const auto write = [&](int n) {
    const auto text = std::to_string(n);
    return storage.commit({{Kind::put, "pair", "a", text, {}}, {Kind::put, "pair", "b", text, {}}});
  };
  must(write(0));
  std::atomic<bool> stop{false};
  std::atomic<int> torn{0};
  std::atomic<int> failures{0};
  std::vector<std::thread> readers;
  for (int t = 0; t < 3; ++t)
    readers.emplace_back([&] {
      while (!stop) {
        auto pair = storage.list("pair", "", "", 0);
        if (!pair || pair->size() != 2)
          ++failures;
        else if ((*pair)[0].value != (*pair)[1].value)
          ++torn;
      }
    });
  for (int n = 1; n <= 100; ++n) must(write(n));
  stop = true;
  for (auto& reader : readers) reader.join();
  CHECK(torn == 0);
  CHECK(failures == 0);
}

}  // namespace mcpgw::contract

#include "contract/watch_contract.hpp"
