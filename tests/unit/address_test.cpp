// Which addresses may be connected to: judged when the connection is made, whatever the name meant before.
#include <arpa/inet.h>
#include <dlfcn.h>
#include <doctest/doctest.h>
#include <netdb.h>

#include <atomic>
#include <map>
#include <mutex>

#include "../support/on_loop.hpp"
#include "../support/scripted_server.hpp"
#include "runtime/http_client.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;
using namespace mcpgw::testing;
using namespace std::chrono_literals;

namespace {

/// A name server that the test owns.
struct Names {
  std::mutex mutex;
  std::map<std::string, std::string> addresses;
  std::atomic<int> asked{0};

  void say(const std::string& name, const std::string& address) {
    const std::lock_guard lock(mutex);
    addresses[name] = address;
  }
  std::string address(const std::string& name) {
    const std::lock_guard lock(mutex);
    const auto it = addresses.find(name);
    if (it == addresses.end()) return name;
    ++asked;
    return it->second;
  }
};
Names& names() {
  static Names all;
  return all;
}

struct Outcome {
  int status = 0;
  std::string reason;
};

Outcome get(Runtime& runtime, const std::shared_ptr<HttpClient>& client, const std::string& url) {
  return on_loop<Outcome>(runtime, [&]() -> Task<Outcome> {
    ClientRequest request;
    request.url = *parse_url(url);
    request.deadline = std::chrono::steady_clock::now() + 10s;
    auto exchange = co_await client->send(std::move(request));
    Outcome out;
    if (!exchange) {
      out.reason = exchange.error().reason;
      co_return out;
    }
    out.status = (*exchange)->status;
    (void)co_await (*exchange)->read_all(1024);
    co_return out;
  });
}

/// Answers one request a connection, and counts connections.
struct Server {
  std::atomic<int> connections{0};
  ScriptedServer server{[this](Peer& peer, int) {
    ++connections;
    if (!peer.read_request().empty())
      peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
  }};
  std::string url(const std::string& name) const {
    return "http://" + name + ":" + std::to_string(server.port()) + "/";
  }
};

}  // namespace

// Takes the place of the C library's, for the names of this test.
extern "C" int getaddrinfo(const char* node, const char* service, const addrinfo* hints, addrinfo** out) {
  using Real = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const Real real = reinterpret_cast<Real>(::dlsym(RTLD_NEXT, "getaddrinfo"));
  const std::string address = node == nullptr ? std::string() : names().address(node);
  return real(node == nullptr ? nullptr : address.c_str(), service, hints, out);
}

TEST_CASE("R14: private, local and metadata addresses in every form, and what is none of them") {
  for (const char* open :
       {"8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0",
        "192.167.255.255", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"}) {
    CAPTURE(open);
    CHECK(address_allowed(open, false, false));
  }
  for (const char* local : {"127.0.0.1",
                            "127.255.255.254",
                            "0.0.0.0",
                            "10.0.0.1",
                            "172.16.0.1",
                            "172.31.255.255",
                            "192.168.0.1",
                            "100.64.0.1",
                            "169.254.1.1",
                            "198.18.0.1",
                            "224.0.0.1",
                            "255.255.255.255",
                            "::",
                            "::1",
                            "fe80::1",
                            "fc00::1",
                            "fd12:3456::1",
                            "ff02::1",
                            "::ffff:127.0.0.1",
                            "::ffff:10.0.0.1",
                            "::127.0.0.1",
                            "64:ff9b::7f00:1",
                            "64:ff9b::a00:1",
                            "2002:7f00:1::",
                            "2002:a00:1::1",
                            "2001::1",
                            "64:ff9b:1::1"}) {
    CAPTURE(local);
    CHECK_FALSE(address_allowed(local, false, false));
    CHECK_FALSE(address_allowed(local, false, true));
    CHECK(address_allowed(local, true, false));
  }
  for (const char* metadata :
       {"169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16",
        "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"}) {
    CAPTURE(metadata);
    CHECK_FALSE(address_allowed(metadata, false, false));
    CHECK_FALSE(address_allowed(metadata, true, false));
    CHECK(address_allowed(metadata, true, true));
  }
  for (const char* nonsense :
       {"", "localhost", "127.1", "0x7f000001", "2130706433", "[::1]", "10.0.0.1:80"}) {
    CAPTURE(nonsense);
    CHECK_FALSE(address_allowed(nonsense, true, true));
  }
}

TEST_CASE("R14: a name that comes to mean another address is judged again with each connection") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  Server server;
  HttpClientOptions options;
  options.allow_private = true;
  const auto client = *HttpClient::create(runtime, options);
  names().say("moves.test", "127.0.0.1");
  CHECK(get(*runtime, client, server.url("moves.test")).status == 200);
  names().say("moves.test", "169.254.169.254");
  CHECK(get(*runtime, client, server.url("moves.test")).reason == "address_not_allowed");
  names().say("moves.test", "::ffff:169.254.169.254");
  CHECK(get(*runtime, client, server.url("moves.test")).reason == "address_not_allowed");
  names().say("moves.test", "127.0.0.1");
  CHECK(get(*runtime, client, server.url("moves.test")).status == 200);
  CHECK(names().asked == 4);
  CHECK(server.connections == 2);
}

TEST_CASE("R14: a name that leads inside is not connected to") {
  auto runtime = Runtime::create({.loops = 1, .workers = 1});
  Server server;
  const auto client = *HttpClient::create(runtime, {});
  for (const char* inside : {"127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "10.1.2.3", "::1"}) {
    CAPTURE(inside);
    names().say("inside.test", inside);
    CHECK(get(*runtime, client, server.url("inside.test")).reason == "address_not_allowed");
  }
  CHECK(server.connections == 0);
}
