// TLS of the server: versions, certificates, protocols, time bounds, strangers, and what an end looks like.
#include <doctest/doctest.h>
#include <openssl/err.h>

#include <fstream>

#include "unit/server_support.hpp"
#include "unit/tls_support.hpp"

using namespace mcpgw;
using namespace mcpgw::testing;

namespace {

HttpServerOptions over_tls() {
  HttpServerOptions options;
  options.tls = TestTls::shared().options;
  return options;
}

/// A blocking TLS client that tells how things ended.
class TlsClient {
 public:
  using Setup = std::function<void(SSL_CTX*, SSL*)>;
  explicit TlsClient(int port, const Setup& setup = {}, SSL_SESSION* session = nullptr,
                     const TestAuthority& authority = TestTls::shared().authority)
      : raw_(port), context_(client_context(authority)) {
    if (setup) setup(context_.get(), nullptr);
    ssl_.reset(SSL_new(context_.get()));
    SSL_set_tlsext_host_name(ssl_.get(), "localhost");
    SSL_set1_host(ssl_.get(), "localhost");
    if (session != nullptr) SSL_set_session(ssl_.get(), session);
    if (setup) setup(context_.get(), ssl_.get());
    SSL_set_fd(ssl_.get(), raw_.fd());
    ERR_clear_error();
    good_ = SSL_connect(ssl_.get()) == 1;
    reason_ = ERR_GET_REASON(ERR_peek_error());
  }

  bool good() const { return good_; }
  int reason() const { return reason_; }
  SSL* ssl() { return ssl_.get(); }
  RawClient& raw() { return raw_; }
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const int n = SSL_write(ssl_.get(), bytes.data(), static_cast<int>(bytes.size()));
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  /// Everything until the end; `clean` tells whether TLS said that it was one.
  std::string rest(bool& clean) {
    std::string out;
    char buffer[4096];
    for (;;) {
      const int n = SSL_read(ssl_.get(), buffer, sizeof buffer);
      if (n > 0) {
        out.append(buffer, static_cast<std::size_t>(n));
        continue;
      }
      clean = SSL_get_error(ssl_.get(), n) == SSL_ERROR_ZERO_RETURN;
      return out;
    }
  }
  std::string ask(std::string_view request) {
    bool clean = false;
    return send(request) ? rest(clean) : "(not sent)";
  }
  std::string read_some() {
    char buffer[65536];
    const int n = SSL_read(ssl_.get(), buffer, sizeof buffer);
    return n > 0 ? std::string(buffer, static_cast<std::size_t>(n)) : std::string();
  }
  std::string subject() {
    const TestCertificate certificate(SSL_get1_peer_certificate(ssl_.get()));
    char name[256] = "";
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate.get()), NID_commonName, name, sizeof name);
    return name;
  }

 private:
  RawClient raw_;
  TestContext context_;
  TestSsl ssl_;
  bool good_ = false;
  int reason_ = 0;
};

std::string last_get() { return get("/", "Connection: close\r\n"); }

void copy(const std::string& from, const std::string& to) {
  std::ifstream in(from, std::ios::binary);
  std::ofstream out(to, std::ios::binary | std::ios::trunc);
  out << in.rdbuf();
}

}  // namespace

TEST_CASE("TLS 1.2 and 1.3, nothing older, only ciphers with forward secrecy") {
  const Site site(echo, over_tls());
  CHECK(site.server->url() == "https://127.0.0.1:" + std::to_string(site.server->port()));
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(site.server->port(), [&](SSL_CTX* context, SSL*) {
      SSL_CTX_set_min_proto_version(context, version);
      SSL_CTX_set_max_proto_version(context, version);
    });
    REQUIRE(client.good());
    CHECK(SSL_version(client.ssl()) == version);
    const std::string answer = client.ask(last_get());
    CHECK(answer.find("HTTP/1.1 200 OK\r\n") == 0);
    CHECK(answer.find("X-Tls: yes\r\n") != std::string::npos);
  }
  const TlsClient old(site.server->port(), [&](SSL_CTX* context, SSL*) {
    SSL_CTX_set_security_level(context, 0);
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context, TLS1_1_VERSION);
  });
  CHECK_FALSE(old.good());
  for (const char* ciphers : {"AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA"}) {
    const TlsClient weak(site.server->port(), [&](SSL_CTX* context, SSL*) {
      SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
      SSL_CTX_set_cipher_list(context, ciphers);
    });
    CHECK_FALSE(weak.good());
  }
}

TEST_CASE("ALPN: http/1.1, or no handshake when the client wants only others") {
  const Site site(echo, over_tls());
  const auto offer = [&](std::string protocols) {
    return TlsClient(site.server->port(), [protocols](SSL_CTX* context, SSL* ssl) {
      if (ssl == nullptr)
        SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(protocols.data()),
                                static_cast<unsigned>(protocols.size()));
    });
  };
  TlsClient both = offer("\x02h2\x08http/1.1");
  REQUIRE(both.good());
  const unsigned char* chosen = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(both.ssl(), &chosen, &size);
  CHECK(std::string(reinterpret_cast<const char*>(chosen), size) == "http/1.1");
  const TlsClient other = offer("\x02h2");
  CHECK_FALSE(other.good());
  CHECK(other.reason() == SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
  CHECK(TlsClient(site.server->port()).good());
}

TEST_CASE("client certificates are demanded when an authority for them is named") {
  ScratchDirectory directory;
  const TestAuthority ours;
  const TestAuthority stranger;
  ours.issue(directory, "alice");
  stranger.issue(directory, "mallory");
  HttpServerOptions options = over_tls();
  options.tls.client_ca = directory.file("clients.crt");
  ours.write_certificate(options.tls.client_ca);
  const Site site(echo, options);
  const auto as = [&](const std::string& name) {
    return TlsClient(site.server->port(), [&, name](SSL_CTX* context, SSL* ssl) {
      if (ssl != nullptr) return;
      const std::string base = directory.path() + "/" + name;
      REQUIRE(SSL_CTX_use_certificate_file(context, (base + ".crt").c_str(), SSL_FILETYPE_PEM) == 1);
      REQUIRE(SSL_CTX_use_PrivateKey_file(context, (base + ".key").c_str(), SSL_FILETYPE_PEM) == 1);
    });
  };
  TlsClient alice = as("alice");
  REQUIRE(alice.good());
  CHECK(alice.ask(last_get()).find("HTTP/1.1 200") == 0);
  // In TLS 1.3 a client hears of the refusal with its first read.
  TlsClient mallory = as("mallory");
  CHECK(mallory.ask(last_get()).find("HTTP/1.1") == std::string::npos);
  TlsClient nobody(site.server->port());
  CHECK(nobody.ask(last_get()).find("HTTP/1.1") == std::string::npos);
  CHECK(site.server->statistics().requests == 1);
}

TEST_CASE("certificates are read again while connections go on; a bad file changes nothing") {
  ScratchDirectory directory;
  const TestAuthority& authority = TestTls::shared().authority;
  authority.issue(directory, "first");
  authority.issue(directory, "second");
  HttpServerOptions options;
  options.tls.cert = directory.file("used.crt");
  options.tls.key = directory.file("used.key");
  const auto put = [&](const std::string& name) {
    copy(directory.path() + "/" + name + ".crt", options.tls.cert);
    copy(directory.path() + "/" + name + ".key", options.tls.key);
  };
  put("first");
  const Site site(echo, options);
  TlsClient before(site.server->port());
  REQUIRE(before.good());
  CHECK(before.subject() == "first");
  put("second");
  CHECK(TlsClient(site.server->port()).subject() == "first");
  REQUIRE(site.server->reload_tls());
  CHECK(TlsClient(site.server->port()).subject() == "second");
  CHECK(before.ask(last_get()).find("HTTP/1.1 200") == 0);

  copy(directory.path() + "/first.crt", options.tls.cert);
  auto mismatch = site.server->reload_tls();
  REQUIRE_FALSE(mismatch);
  CHECK(mismatch.error().reason == "invalid_tls");
  CHECK(mismatch.error().field == "tls.key");
  CHECK(mismatch.error().message == "The TLS key does not belong to the certificate");
  std::ofstream(options.tls.cert, std::ios::trunc) << "no PEM";
  CHECK(site.server->reload_tls().error().field == "tls.cert");
  CHECK(TlsClient(site.server->port()).subject() == "second");

  const Site plain(echo);
  CHECK(plain.server->reload_tls().error().code == ErrorCode::unsupported);
}

TEST_CASE("TLS settings that cannot work are refused at the start") {
  ScratchDirectory directory;
  const auto handler = std::make_shared<ScriptedHandler>(echo);
  const auto runtime = Runtime::create({1, 1, 1});
  const auto field = [&](auto change) {
    HttpServerOptions options = over_tls();
    change(options.tls);
    const auto started = HttpServer::start(handler, runtime, options);
    REQUIRE_FALSE(started);
    CHECK(started.error().code == ErrorCode::invalid_argument);
    return started.error().field;
  };
  const std::string locked = directory.file("locked.key");
  {
    const TestKey key(EVP_EC_gen("P-256"));
    FILE* out = std::fopen(locked.c_str(), "w");
    PEM_write_PrivateKey(out, key.get(), EVP_aes_128_cbc(), reinterpret_cast<const unsigned char*>("pass"), 4,
                         nullptr, nullptr);
    std::fclose(out);
  }
  CHECK(field([](TlsOptions& tls) { tls.key.clear(); }) == "tls.key");
  CHECK(field([](TlsOptions& tls) { tls.cert.clear(); }) == "tls.cert");
  CHECK(field([](TlsOptions& tls) { tls = {"", "", tls.cert}; }) == "tls.cert");
  CHECK(field([](TlsOptions& tls) { tls.cert = "/nowhere.crt"; }) == "tls.cert");
  CHECK(field([](TlsOptions& tls) { tls.key = "/nowhere.key"; }) == "tls.key");
  CHECK(field([](TlsOptions& tls) { tls.key = tls.cert; }) == "tls.key");
  CHECK(field([&](TlsOptions& tls) { tls.key = locked; }) == "tls.key");
  CHECK(field([](TlsOptions& tls) { tls.client_ca = "/nowhere.crt"; }) == "tls.client_ca");
  CHECK(field([](TlsOptions& tls) { tls.client_ca = tls.key; }) == "tls.client_ca");
}

TEST_CASE("a handshake has its time, and costs others none") {
  HttpServerOptions options = over_tls();
  options.tls.handshake_timeout = std::chrono::milliseconds(150);
  const Site site(echo, options, 1);
  RawClient silent = site.connect();
  RawClient half = site.connect();
  half.send("\x16\x03\x01");
  RawClient drip = site.connect();
  drip.send("\x16\x03\x01\x02\x00");
  TlsClient quick(site.server->port());
  CHECK(quick.ask(last_get()).find("HTTP/1.1 200") == 0);
  while (!drip.readable(20) && drip.send("\x01")) {
  }
  CHECK(silent.ended());
  CHECK(half.ended());
  CHECK(eventually([&] { return site.server->statistics().connections == 0; }));
}

TEST_CASE("plain HTTP on the TLS port is told so; other bytes are not answered") {
  const Site site(echo, over_tls());
  RawClient plain = site.connect();
  plain.send(get());
  const auto answer = plain.read();
  REQUIRE(answer);
  CHECK(answer->status == 400);
  CHECK(answer->body.find("\"code\":\"https_required\"") != std::string::npos);
  CHECK(answer->header("Connection") == "close");
  CHECK(plain.ended());
  for (const std::string& bytes :
       {std::string("\x00\x01\x02", 3), std::string("\x80\x2e\x01\x03\x01", 5), std::string("\xff\xff")}) {
    RawClient stranger = site.connect();
    stranger.send(bytes);
    CHECK(stranger.ended());
  }
  RawClient broken = site.connect();
  broken.send(std::string("\x16\x03\x01\x00\x05hello", 10));
  std::string alert;
  CHECK(broken.take_bytes(7, alert));  // a fatal alert
  CHECK(alert[0] == 0x15);
  CHECK(broken.ended());
  CHECK(site.server->statistics().requests == 0);
}

TEST_CASE("garbage inside a session ends it, and only it") {
  const Site site(echo, over_tls());
  TlsClient client(site.server->port());
  REQUIRE(client.good());
  TlsClient other(site.server->port());
  client.raw().send(std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'x'));
  bool clean = true;
  CHECK(client.rest(clean).empty());
  CHECK_FALSE(clean);
  CHECK(other.ask(last_get()).find("HTTP/1.1 200") == 0);
}

TEST_CASE("renegotiation is refused, key updates are followed") {
  const Site site(echo, over_tls());
  TlsClient old(site.server->port(),
                [](SSL_CTX* context, SSL*) { SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION); });
  REQUIRE(old.good());
  SSL_renegotiate(old.ssl());
  CHECK(SSL_do_handshake(old.ssl()) != 1);
  TlsClient client(site.server->port());
  REQUIRE(client.good());
  for (int i = 0; i < 3; ++i) {
    REQUIRE(SSL_key_update(client.ssl(), SSL_KEY_UPDATE_REQUESTED) == 1);
    CHECK(client.send(get("/" + std::to_string(i))));
    CHECK(client.read_some().find("X-Target: /" + std::to_string(i)) != std::string::npos);
  }
}

TEST_CASE("sessions are resumed, also with client certificates") {
  ScratchDirectory directory;
  const TestAuthority ours;
  ours.issue(directory, "alice");
  HttpServerOptions options = over_tls();
  options.tls.client_ca = directory.file("clients.crt");
  ours.write_certificate(options.tls.client_ca);
  const Site site(echo, options);
  const TlsClient::Setup as_alice = [&](SSL_CTX* context, SSL* ssl) {
    if (ssl != nullptr) return;
    SSL_CTX_use_certificate_file(context, (directory.path() + "/alice.crt").c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(context, (directory.path() + "/alice.key").c_str(), SSL_FILETYPE_PEM);
  };
  TlsClient first(site.server->port(), as_alice);
  CHECK(first.ask(last_get()).find("HTTP/1.1 200") == 0);
  SSL_SESSION* session = SSL_get1_session(first.ssl());
  TlsClient second(site.server->port(), as_alice, session);
  SSL_SESSION_free(session);
  REQUIRE(second.good());
  CHECK(SSL_session_reused(second.ssl()) == 1);
  CHECK(second.ask(last_get()).find("HTTP/1.1 200") == 0);
}

TEST_CASE("a truncated answer does not look complete, a complete one does") {
  const Site site({}, over_tls());
  const std::string request = "GET / HTTP/1.0\r\n\r\n";  // its answer ends with the connection
  for (const bool complete : {true, false}) {
    TlsClient client(site.server->port());
    client.send(request);
    auto stream = site.asked().responder->start(text("part"));
    if (complete) stream->close();
    stream.reset();
    bool clean = !complete;
    client.rest(clean);
    CHECK(clean == complete);
  }
  // An idle connection ends cleanly, too.
  TlsClient idle(site.server->port());
  idle.send(get());
  site.asked().responder->send(text("x"));
  CHECK(idle.read_some().find("HTTP/1.1 200") == 0);
  site.server->drain();
  bool clean = false;
  CHECK(idle.rest(clean).empty());
  CHECK(clean);
}

TEST_CASE("many records in one segment, one record in many segments") {
  const Site site(echo, over_tls());
  TlsClient client(site.server->port());
  REQUIRE(client.good());
  for (const std::size_t size : {1u, 16383u, 16384u, 16385u, 70000u, 1000000u}) {
    CHECK(client.send(post(std::string(size, 'x'))));
    const std::string end = "\r\n\r\n" + std::string(size, 'x');
    std::string answer;
    while (answer.size() < end.size() || answer.compare(answer.size() - end.size(), end.size(), end) != 0) {
      const std::string more = client.read_some();
      REQUIRE_FALSE(more.empty());
      answer += more;
    }
  }
  // Byte by byte through the record layer.
  for (const char c : get("/bytes")) CHECK(client.send({&c, 1}));
  CHECK(client.read_some().find("X-Target: /bytes") != std::string::npos);
}
