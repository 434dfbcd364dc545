// What a requestState holds, and that nobody else can make, read or change one.
#include <doctest/doctest.h>

#include <set>

#include "gateway/request_state.hpp"
#include "mcpgw/testing.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {

EncryptionKeys keys(char fill) { return {std::string(32, fill), {}}; }

std::shared_ptr<RequestStates> states(const EncryptionKeys& with, std::shared_ptr<Clock> clock,
                                      KeyRing::Source source = nullptr) {
  auto made =
      RequestStates::create(with, std::move(clock), testing::make_seeded_random(7), std::move(source));
  REQUIRE(made);
  return *made;
}

RequestState example(const RequestStates& by) {
  RequestState out;
  out.user_id = "u";
  out.target_id = "t";
  out.method = "tools/call";
  out.digest = request_digest("tools/call", R"({"name":"a"})");
  out.parked = "p";
  out.replica = "r";
  out.round = 3;
  out.expires = by.now() + 60;
  return out;
}

}  // namespace

TEST_CASE("a state comes back as it was, for as long as it is good") {
  auto clock = std::make_shared<testing::ManualClock>();
  const auto one = states(keys('k'), clock);
  RequestState state = example(*one);
  state.upstream = std::string("\x00\xff\"\\ \n", 6);
  const std::string sealed = one->seal(state);
  const auto opened = one->open(sealed);
  REQUIRE(opened);
  CHECK(opened->user_id == "u");
  CHECK(opened->target_id == "t");
  CHECK(opened->method == "tools/call");
  CHECK(opened->digest == state.digest);
  CHECK(opened->parked == "p");
  CHECK(opened->replica == "r");
  CHECK(opened->round == 3);
  CHECK(opened->upstream == state.upstream);
  CHECK_FALSE(one->open(one->seal(example(*one)))->upstream);
  CHECK(sealed.find("tools") == std::string::npos);
  CHECK(one->seal(state) != sealed);  // each has a nonce of its own

  clock->advance(std::chrono::seconds(59));
  CHECK(one->open(sealed));
  clock->advance(std::chrono::seconds(1));
  CHECK_FALSE(one->open(sealed));
}

TEST_CASE("a text that was altered, or made elsewhere, is none") {
  auto clock = std::make_shared<testing::ManualClock>();
  int reads = 0;
  const auto one = states(keys('k'), clock, [&]() -> std::optional<EncryptionKeys> {
    ++reads;
    return std::nullopt;
  });
  const std::string sealed = one->seal(example(*one));
  for (std::size_t at = 0; at < sealed.size(); ++at) {
    std::string changed = sealed;
    changed[at] = changed[at] == 'A' ? 'B' : 'A';
    CAPTURE(at);
    CHECK_FALSE(one->open(changed));
  }
  for (std::size_t size = 0; size < sealed.size(); ++size) CHECK_FALSE(one->open(sealed.substr(0, size)));
  for (const char* more : {"A", "=", "-TAMPERED", " ", "."}) CHECK_FALSE(one->open(sealed + more));
  CHECK_FALSE(one->open(std::string(1024 * 1024, 'A')));
  CHECK_FALSE(states(keys('x'), clock)->open(sealed));
  // Keys are not read anew for what anybody may send.
  CHECK_FALSE(one->open("v1.unknown." + sealed));
  CHECK(reads == 0);
  // A value that was sealed for a record opens no call.
  const auto ring = KeyRing::create(keys('k'), testing::make_seeded_random(1), nullptr);
  REQUIRE(ring);
  CHECK_FALSE(one->open((*ring)->seal(R"({"u":"u","e":99999999999})", "user:1")));
}

TEST_CASE("a replaced key still opens what it sealed") {
  auto clock = std::make_shared<testing::ManualClock>();
  const std::string sealed = states(keys('k'), clock)->seal(example(*states(keys('k'), clock)));
  CHECK(states({std::string(32, 'n'), {std::string(32, 'k')}}, clock)->open(sealed));
}

TEST_CASE("the digest is of what makes a request the same one, however it is spelt") {
  const std::string digest =
      request_digest("tools/call", R"({"name":"a","arguments":{"x":1,"y":[1.5,"é"]}})");
  for (const char* same : {R"({"arguments":{"y":[1.5,"é"],"x":1},"name":"a"})",
                           R"({ "name" : "a", "arguments" : { "x" : 1, "y" : [ 1.5, "\u00e9" ] } })",
                           R"({"name":"a","arguments":{"x":1,"y":[1.5,"é"]},"_meta":{"progressToken":1}})"})
    CHECK(request_digest("tools/call", same) == digest);
  std::set<std::string> all{digest};
  for (const char* other : {R"({"name":"b","arguments":{"x":1,"y":[1.5,"é"]}})",
                            R"({"name":"a","arguments":{"x":2,"y":[1.5,"é"]}})",
                            R"({"name":"a","arguments":{"x":"1","y":[1.5,"é"]}})",
                            R"({"name":"a","arguments":{}})", R"({"name":"a"})", R"({"uri":"a"})", R"({})"})
    CHECK(all.insert(request_digest("tools/call", other)).second);
  CHECK(request_digest("prompts/get", R"({"name":"a"})") != request_digest("tools/call", R"({"name":"a"})"));
}
