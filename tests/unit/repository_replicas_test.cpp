// Who has a session open: one replica at a time, by conditional writes, and whoever lost it is told once.
#include <doctest/doctest.h>

#include "mcpgw/repository.hpp"

using namespace mcpgw;

namespace {

SessionRecord session_of(const std::string& user_id, const std::string& id, const std::string& owner) {
  SessionRecord out;
  out.id = id;
  out.user_id = user_id;
  out.protocol_version = "2025-11-25";
  out.initialize_params = "{}";
  out.owner = owner;
  return out;
}

ReplicaRecord replica(const std::string& id, std::int64_t beat = 0) {
  ReplicaRecord out;
  out.id = id;
  out.address = "http://" + id;
  out.beat = beat;
  return out;
}

}  // namespace

TEST_CASE("a session has one owner, who changes by agreement on who it was") {
  RepositoryOptions options;
  options.storage = make_memory_storage();
  options.keys.current = std::string(32, 'k');
  options.clock = make_system_clock();
  options.random = make_system_random();
  const auto opened = Repository::open(std::move(options));
  REQUIRE(opened);
  Repository& repository = **opened;
  const std::string user = make_uuid(*make_system_random());
  REQUIRE(repository.save_replica(replica("a", 1)));
  REQUIRE(repository.save_replica(replica("b")));
  REQUIRE(repository.save_replica(replica("a", 2)));
  const auto all = repository.replicas();
  REQUIRE(all);
  REQUIRE(all->size() == 2);
  CHECK((*all)[0].address == "http://a");
  CHECK((*all)[0].beat == 2);

  REQUIRE(repository.save_session(session_of(user, "s", "a")));
  CHECK((*repository.load_session("s"))->owner == "a");
  // Whoever is wrong about the owner learns who it is.
  const auto refused = repository.take_session("s", "x", "b");
  REQUIRE(refused);
  CHECK((*refused)->owner == "a");
  const auto taken = repository.take_session("s", "a", "b");
  REQUIRE(taken);
  CHECK((*taken)->owner == "b");
  const auto late = repository.take_session("s", "a", "c");
  REQUIRE(late);
  CHECK((*late)->owner == "b");

  // What the one before still wants to write comes too late; it is told once.
  const Status stale = repository.update_session(session_of(user, "s", "a"));
  REQUIRE_FALSE(stale);
  CHECK(stale.error().reason == "session_moved");
  CHECK(repository.update_session(session_of(user, "s", "b")));
  const auto told = repository.taken_sessions("a");
  REQUIRE(told);
  CHECK(*told == std::vector<std::string>{"s"});
  CHECK(repository.taken_sessions("a")->empty());
  CHECK(repository.taken_sessions("b")->empty());

  // One that has said goodbye need not be told, and leaves nothing.
  REQUIRE(repository.delete_replica("b"));
  REQUIRE((*repository.take_session("s", "b", "a"))->owner == "a");
  CHECK(repository.taken_sessions("b")->empty());
  REQUIRE((*repository.take_session("s", "a", "c"))->owner == "c");
  REQUIRE(repository.delete_replica("a"));
  CHECK(repository.taken_sessions("a")->empty());
  CHECK(repository.replicas()->empty());

  CHECK_FALSE(repository.take_session("none", "", "a")->has_value());
  REQUIRE(repository.save_session(session_of(user, "t", "")));  // of an older version
  CHECK((*repository.take_session("t", "", "a"))->owner == "a");
}
