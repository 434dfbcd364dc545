// A gateway with one target that has a fault and one that has none, and what must hold for both.
#pragma once

#include <doctest/doctest.h>
#include <openssl/ssl.h>

#include <atomic>
#include <thread>

#include "mcpgw/testing.hpp"
#include "support/scripted_mcp.hpp"
#include "unit/tls_support.hpp"

namespace mcpgw::testing {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

/// How long a target may be away after its fault is over: the first pause of its circuit or the first backoff
/// of a process (one second each), and room for a slow machine.
inline constexpr auto kRecovery = 10s;

inline std::string code_of(const McpReply& reply) {
  return detail::raw::string_value(detail::raw::find(detail::raw::find(reply.body, "error", "data"), "code"))
      .value_or("");
}

class FaultyWorld {
 public:
  explicit FaultyWorld(std::function<void(GatewayOptions&)> change = {}) : gw(network(std::move(change))) {
    add("good", good.url(), TransportType::streamable_http);
    gw.allow("alice", "");
    gw.allow("bob", "");
    REQUIRE(gw.as("bob").call_tool("good_echo").ok());
  }

  std::string add(const std::string& name, const std::string& url, TransportType type,
                  const std::function<void(Target&)>& change = {}) {
    Target target;
    target.name = name;
    target.prefix = PrefixMode::always;
    target.transport_type = type;
    target.protocol_era = EraSetting::legacy;
    target.url = url;
    target.timeout_ms = 3000;
    if (change) change(target);
    auto made = gw.gateway().repository()->create_target(std::move(target));
    REQUIRE(made);
    return made->id;
  }

  void edit(const std::string& id, const std::function<void(Target&)>& change) {
    auto& repository = *gw.gateway().repository();
    TargetUpdate update;
    update.target = *repository.target(id);
    change(update.target);
    update.keep_credentials = true;
    REQUIRE(repository.update_target(update));
  }

  std::string status(const std::string& id, const char* name) {
    const HttpResponse answer = gw.as("admin").api("GET", "/api/targets/" + id);
    const auto value = detail::raw::find(detail::raw::find(answer.body, "status"), name);
    return detail::raw::string_value(value).value_or(std::string(value));
  }

  /// The call fails with `code` and an administrator is told `why`; the other target goes on meanwhile.
  void fails(const std::string& id, const std::string& tool, const char* code, const char* why) {
    CAPTURE(tool);
    std::atomic<bool> done{false};
    std::string answer;
    std::thread call([&] {
      answer = gw.as("alice").call_tool(tool).body;
      done = true;
    });
    CHECK(gw.as("bob").call_tool("good_echo").ok());
    CHECK(wait_until([&] { return done.load(); }));
    call.join();
    McpReply reply;
    reply.body = answer;
    CHECK_MESSAGE(code_of(reply) == code, answer);
    const std::string seen = status(id, "last_error");
    CHECK_MESSAGE(seen.find(why) != std::string::npos, seen);
    CHECK(answer.find("127.0.0.1") == std::string::npos);
    CHECK(gw.as("bob").call_tool("good_echo").ok());
  }

  /// The fault is over: calls succeed again, and how long that took is told.
  void recovers(const std::string& tool) {
    CAPTURE(tool);
    const auto from = Clock::now();
    bool works = false;
    while (!works && Clock::now() - from < kRecovery) {
      works = gw.as("alice").call_tool(tool).ok();
      if (!works) std::this_thread::sleep_for(20ms);
    }
    CHECK(works);
    MESSAGE("served again after "
            << std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - from).count() << " ms");
  }

  ScriptedMcp good;
  InProcessGateway gw;

 private:
  static InProcessOptions network(std::function<void(GatewayOptions&)> change) {
    InProcessOptions out;
    out.gateway.upstream.allow_private = true;
    out.gateway.upstream.connect_timeout = 2s;
    out.gateway.upstream.list_timeout = 3s;
    out.gateway.limits.upstream_bytes = 256 * 1024;
    out.gateway.stdio.enabled = true;
    if (change) change(out.gateway);
    return out;
  }
};

/// TLS in front of a plain server, with a certificate that can be changed for another.
class TlsFront {
 public:
  TlsFront(int target, const std::string& certificate)
      : target_(target), server_([this](Peer& peer, int) { serve(peer); }) {
    use(certificate);
  }
  int port() const { return server_.port(); }
  std::string url(const std::string& path) const { return server_.url(path, "https"); }
  static ScratchDirectory& files() {
    static ScratchDirectory made;
    return made;
  }
  static const TestAuthority& authority() {
    static const TestAuthority made;
    return made;
  }
  /// `ask_client`: clients must show a certificate of the authority.
  void use(const std::string& certificate, bool ask_client = false) {
    TestContext made(SSL_CTX_new(TLS_server_method()));
    const std::string base = files().path() + "/" + certificate;
    REQUIRE(SSL_CTX_use_certificate_file(made.get(), (base + ".crt").c_str(), SSL_FILETYPE_PEM) == 1);
    REQUIRE(SSL_CTX_use_PrivateKey_file(made.get(), (base + ".key").c_str(), SSL_FILETYPE_PEM) == 1);
    if (ask_client) {
      X509_STORE_add_cert(SSL_CTX_get_cert_store(made.get()), authority().certificate());
      SSL_CTX_set_verify(made.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
      SSL_CTX_set_session_id_context(made.get(), reinterpret_cast<const unsigned char*>("front"), 5);
    }
    const std::lock_guard lock(mutex_);
    context_ = std::move(made);
  }

 private:
  void serve(Peer& peer) {
    TestSsl ssl;
    {
      const std::lock_guard lock(mutex_);
      ssl.reset(SSL_new(context_.get()));
    }
    SSL_set_fd(ssl.get(), peer.fd());
    if (SSL_accept(ssl.get()) != 1) return;
    const int plain = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(target_));
    if (::connect(plain, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0)
      pump(ssl.get(), peer.fd(), plain);
    ::close(plain);
  }
  static void pump(SSL* ssl, int secret, int plain) {
    char buffer[16384];
    for (;;) {
      pollfd both[2] = {{secret, POLLIN, 0}, {plain, POLLIN, 0}};
      if (SSL_pending(ssl) == 0 && ::poll(both, 2, 30000) <= 0) return;
      if (SSL_pending(ssl) > 0 || both[0].revents != 0) {
        const int n = SSL_read(ssl, buffer, sizeof buffer);
        if (n <= 0 || ::send(plain, buffer, static_cast<std::size_t>(n), MSG_NOSIGNAL) != n) return;
      }
      if (both[1].revents != 0) {
        const ssize_t n = ::recv(plain, buffer, sizeof buffer, 0);
        if (n <= 0 || SSL_write(ssl, buffer, static_cast<int>(n)) != n) return;
      }
    }
  }

  const int target_;
  std::mutex mutex_;  // protects the context
  TestContext context_;
  ScriptedServer server_;
};

/// Certificates "valid", "expired" and "client", and the authority's own as "ca.crt".
inline void make_certificates() {
  static const bool made = [] {
    auto& files = TlsFront::files();
    TlsFront::authority().issue(files, "valid");
    TlsFront::authority().issue(files, "expired", -60);
    TlsFront::authority().issue(files, "client");
    TlsFront::authority().write_certificate(files.file("ca.crt"));
    return true;
  }();
  (void)made;
}

}  // namespace mcpgw::testing
