// What replicas say to one another is theirs alone, and who lives is seen from storage.
#include <doctest/doctest.h>

#include "gateway/replica_peers.hpp"
#include "gateway/replica_wire.hpp"
#include "mcpgw/testing.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using mcpgw::testing::ManualClock;
using std::chrono::seconds;

namespace {

const std::string kKey(32, 'k'), kOther(32, 'o');

struct World {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>();
  std::shared_ptr<Random> random = make_system_random();
  std::unique_ptr<ReplicaSeal> seal(const EncryptionKeys& keys) {
    return std::make_unique<ReplicaSeal>(*KeyRing::create(keys, random, nullptr), clock);
  }
  ReplicaRequest request() {
    ReplicaRequest out{"a", "b", std::string(32, '\0'), {}};
    random->fill(out.key.data(), out.key.size());
    out.request.method = "POST";
    out.request.target = "/mcp?x=%00";
    out.request.headers = {{"Authorization", "Bearer canary"}, {"X-Bytes", "\xff\xfe"}};
    out.request.body = "line\nline\xff";
    out.request.remote_address = "192.0.2.1";
    out.request.over_tls = true;
    return out;
  }
};

}  // namespace

TEST_CASE("a request arrives as it was sent, once, in time, and with the same keys") {
  World world;
  const auto sender = world.seal({kKey, {}}), receiver = world.seal({kOther, {kKey}}),
             stranger = world.seal({kOther, {}});
  const ReplicaRequest sent = world.request();
  const std::string sealed = sender->seal(sent);
  CHECK(sealed.find("canary") == std::string::npos);
  CHECK_FALSE(stranger->open(sealed));
  const auto got = receiver->open(sealed);
  REQUIRE(got);
  CHECK(got->from == "a");
  CHECK(got->to == "b");
  CHECK(got->key == sent.key);
  CHECK(got->request.method == "POST");
  CHECK(got->request.target == sent.request.target);
  CHECK(got->request.headers == sent.request.headers);
  CHECK(got->request.body == sent.request.body);
  CHECK(got->request.remote_address == "192.0.2.1");
  CHECK(got->request.over_tls);

  const auto again = receiver->open(sealed);
  REQUIRE_FALSE(again);
  CHECK(again.error().reason == "unauthorized");
  std::string altered = sender->seal(world.request());
  altered[altered.size() / 2] = altered[altered.size() / 2] == 'A' ? 'B' : 'A';
  CHECK_FALSE(receiver->open(altered));
  for (const char* rubbish : {"", "v1.", "v1.0123456789abcdef.", "{}"}) CHECK_FALSE(receiver->open(rubbish));

  // Too old; and what is old enough to be forgotten is too old to be used again.
  const std::string late = sender->seal(world.request());
  const std::string seen = sender->seal(world.request());
  REQUIRE(receiver->open(seen));
  for (int i = 0; i < 200; ++i) {
    world.clock->advance(seconds(1));
    CHECK_FALSE(receiver->open(seen));
    (void)receiver->open(sender->seal(world.request()));
  }
  CHECK_FALSE(receiver->open(late));
}

TEST_CASE("the lines of an answer open in their order alone, and only with its key") {
  World world;
  using Kind = ReplicaFrame::Kind;
  const auto there = ReplicaFrames::create(kKey, world.random),
             here = ReplicaFrames::create(kKey, world.random);
  REQUIRE(there);
  REQUIRE(here);
  CHECK(ReplicaFrames::create("short", world.random) == nullptr);
  ReplicaFrame start{Kind::start, {}};
  start.response.status = 207;
  start.response.headers = {{"Content-Type", "text/event-stream"}};
  start.response.body = ": open\n\n";
  const std::string first = there->seal(start), alive = there->seal({Kind::alive, {}});
  ReplicaFrame data{Kind::data, {}};
  data.response.body = "data: {}\n\n";
  const std::string second = there->seal(data), end = there->seal({Kind::end, {}});
  CHECK(first.back() == '\n');
  CHECK(first.find('\n') == first.size() - 1);
  const auto line = [](const std::string& text) { return std::string_view(text).substr(0, text.size() - 1); };
  const auto got = here->open(line(first));
  REQUIRE(got);
  CHECK(got->kind == Kind::start);
  CHECK(got->response.status == 207);
  CHECK(got->response.headers == start.response.headers);
  CHECK(got->response.body == start.response.body);
  REQUIRE(here->open(line(alive)));
  const auto part = here->open(line(second));
  REQUIRE(part);
  CHECK(part->response.body == data.response.body);
  CHECK_FALSE(here->open(line(second)));  // again

  const auto skipping = ReplicaFrames::create(kKey, world.random);
  REQUIRE(skipping->open(line(first)));
  CHECK_FALSE(skipping->open(line(second)));
  const auto other = ReplicaFrames::create(kOther, world.random);
  CHECK_FALSE(other->open(line(first)));
  CHECK_FALSE(end.empty());
}

TEST_CASE("a replica lives while its beats are seen, by the reader's clock") {
  ReplicaPeers peers(seconds(15));
  const auto begin = std::chrono::steady_clock::now();
  const auto record = [](const std::string& id, std::int64_t beat) {
    ReplicaRecord out;
    out.id = id;
    out.address = "http://" + id;
    out.beat = beat;
    return out;
  };
  CHECK_FALSE(peers.address("a"));
  auto now = begin;
  CHECK(peers.update({record("a", 7), record("b", 1)}, now).empty());
  CHECK(peers.address("a") == "http://a");
  // One goes on, one is silent.
  for (int i = 1; i <= 4; ++i) (void)peers.update({record("a", 7 + i), record("b", 1)}, now += seconds(5));
  CHECK(peers.address("a"));
  CHECK_FALSE(peers.address("b"));
  CHECK(peers.knows("b"));
  // Whoever saw nothing for a while does not take the silence for theirs.
  (void)peers.update({record("a", 11), record("b", 1)}, now += seconds(60));
  CHECK(peers.address("a"));
  CHECK(peers.address("b"));
  std::vector<std::string> dead;
  for (int i = 0; i < 70 && dead.empty(); ++i)
    dead = peers.update({record("a", 12 + i), record("b", 1)}, now += seconds(5));
  CHECK(dead == std::vector<std::string>{"b"});
  CHECK(peers.address("a"));
  peers.remove("a");
  CHECK_FALSE(peers.address("a"));
  CHECK_FALSE(peers.knows("a"));
}
