// Certificates made on the spot, and a proxy that speaks plain TCP to tests and TLS to the server: what is
// tested over TCP is tested over TLS with the same raw client.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "mcpgw/server.hpp"

namespace mcpgw::testing {

/// A directory that goes with the object.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/mcpgw-test-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("no scratch directory");
  }
  ~ScratchDirectory() {
    for (const std::string& name : names_) ::unlink((path_ + "/" + name).c_str());
    ::rmdir(path_.c_str());
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  /// The path of a file in it, which is removed at the end.
  std::string file(const std::string& name) {
    names_.push_back(name);
    return path_ + "/" + name;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::vector<std::string> names_;
};

struct KeyFree {
  void operator()(EVP_PKEY* key) const noexcept { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const noexcept { X509_free(certificate); }
  void operator()(SSL_CTX* context) const noexcept { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const noexcept { SSL_free(ssl); }
};
using TestKey = std::unique_ptr<EVP_PKEY, KeyFree>;
using TestCertificate = std::unique_ptr<X509, KeyFree>;
using TestContext = std::unique_ptr<SSL_CTX, KeyFree>;
using TestSsl = std::unique_ptr<SSL, KeyFree>;

/// A certificate authority and what it signs.
class TestAuthority {
 public:
  TestAuthority() : key_(EVP_EC_gen("P-256")) {
    certificate_ = make("Test authority", key_.get(), nullptr, true);
  }

  /// Writes `<name>.crt` and `<name>.key`; valid for localhost and 127.0.0.1, for so many seconds from now.
  void issue(ScratchDirectory& directory, const std::string& name, long valid_for = 24 * 3600) const {
    const TestKey key(EVP_EC_gen("P-256"));
    const TestCertificate certificate = make(name, key.get(), certificate_.get(), false, valid_for);
    write(directory.file(name + ".crt"), [&](FILE* out) { PEM_write_X509(out, certificate.get()); });
    write(directory.file(name + ".key"),
          [&](FILE* out) { PEM_write_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr); });
  }
  void write_certificate(const std::string& path) const {
    write(path, [&](FILE* out) { PEM_write_X509(out, certificate_.get()); });
  }
  X509* certificate() const { return certificate_.get(); }

 private:
  template <class F>
  static void write(const std::string& path, F with) {
    FILE* out = std::fopen(path.c_str(), "w");
    if (out == nullptr) throw std::runtime_error("cannot write " + path);
    with(out);
    std::fclose(out);
  }

  TestCertificate make(const std::string& name, EVP_PKEY* key, X509* issuer, bool authority,
                       long valid_for = 24 * 3600) const {
    static std::atomic<long> serial{1};
    TestCertificate out(X509_new());
    X509_set_version(out.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(out.get()), serial++);
    X509_gmtime_adj(X509_getm_notBefore(out.get()), -3600);
    X509_gmtime_adj(X509_getm_notAfter(out.get()), valid_for);
    X509_set_pubkey(out.get(), key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(out.get()), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_issuer_name(out.get(), X509_get_subject_name(issuer == nullptr ? out.get() : issuer));
    const auto extend = [&](int nid, const char* value) {
      X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
      X509_add_ext(out.get(), extension, -1);
      X509_EXTENSION_free(extension);
    };
    extend(NID_basic_constraints, authority ? "critical,CA:TRUE" : "CA:FALSE");
    if (!authority) extend(NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    X509_sign(out.get(), key_.get(), EVP_sha256());
    return out;
  }

  TestKey key_;
  TestCertificate certificate_;
};

/// One authority and one server certificate for a whole test program.
struct TestTls {
  TestTls() {
    authority.issue(directory, "server");
    options.cert = directory.path() + "/server.crt";
    options.key = directory.path() + "/server.key";
  }
  static const TestTls& shared() {
    static const TestTls made;
    return made;
  }
  ScratchDirectory directory;
  TestAuthority authority;
  TlsOptions options;
};

/// A client's settings that trust `authority`.
inline TestContext client_context(const TestAuthority& authority) {
  TestContext context(SSL_CTX_new(TLS_client_method()));
  X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), authority.certificate());
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  return context;
}

/// Plain TCP on port(), TLS to `target`. One thread for all connections; ends, half-closes and resets pass.
class TlsProxy {
 public:
  explicit TlsProxy(int target) : target_(target), context_(client_context(TestTls::shared().authority)) {
    ::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes with write(2)
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || ::listen(listener_, 4096) != 0)
      throw std::runtime_error("the proxy cannot listen");
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    if (::pipe2(wake_, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    thread_ = std::thread([this] { run(); });
  }
  ~TlsProxy() {
    ::close(wake_[1]);
    thread_.join();
    ::close(wake_[0]);
    ::close(listener_);
  }
  TlsProxy(const TlsProxy&) = delete;
  int port() const { return port_; }

 private:
  struct Pair {
    int client = -1;
    int server = -1;
    TestSsl ssl;
    bool ready = false, wants_write = false, client_ended = false, server_ended = false;
    bool said_end = false, told_end = false, dead = false, was_reset = false;
    std::string to_server, to_client;
  };

  static sockaddr_in loopback(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  void run() {
    for (;;) {
      std::vector<pollfd> polled{{wake_[0], POLLIN, 0}, {listener_, POLLIN, 0}};
      for (const Pair& pair : pairs_) {
        short client = 0;
        if (!pair.client_ended && pair.to_server.size() < kBuffer) client |= POLLIN;
        if (!pair.to_client.empty()) client |= POLLOUT;
        short server = 0;
        if (!pair.ready || (!pair.server_ended && pair.to_client.empty())) server |= POLLIN;
        if (pair.wants_write) server |= POLLOUT;
        // A negative descriptor is passed over: the end of a socket would be reported for ever.
        polled.push_back({client == 0 ? -1 : pair.client, client, 0});
        polled.push_back({server == 0 ? -1 : pair.server, server, 0});
      }
      if (::poll(polled.data(), polled.size(), -1) < 0) continue;
      if (polled[0].revents != 0) break;
      std::size_t at = 2;
      for (auto pair = pairs_.begin(); pair != pairs_.end(); at += 2) {
        if (polled[at].revents != 0 || polled[at + 1].revents != 0) step(*pair);
        if (pair->dead) {
          end(*pair);
          pair = pairs_.erase(pair);
        } else {
          ++pair;
        }
      }
      if (polled[1].revents != 0) accept_all();
    }
    for (Pair& pair : pairs_) end(pair);
  }

  void accept_all() {
    for (int client; (client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
      Pair pair;
      pair.client = client;
      pair.server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      const sockaddr_in address = loopback(target_);
      const int on = 1;
      ::setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      ::setsockopt(pair.server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      if (::connect(pair.server, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        end(pair);
        continue;
      }
      ::fcntl(pair.server, F_SETFL, O_NONBLOCK);
      pair.ssl.reset(SSL_new(context_.get()));
      SSL_set_fd(pair.ssl.get(), pair.server);
      SSL_set_connect_state(pair.ssl.get());
      pairs_.push_back(std::move(pair));
      step(pairs_.back());
    }
  }

  /// Moves what can be moved.
  void step(Pair& pair) {
    char buffer[16384];
    for (bool moved = true; moved && !pair.dead;) {
      moved = false;
      pair.wants_write = false;
      ERR_clear_error();  // what another connection left would be taken for this one's
      if (!pair.ready) {
        const int result = SSL_do_handshake(pair.ssl.get());
        if (result == 1) {
          pair.ready = moved = true;
        } else {
          const int why = SSL_get_error(pair.ssl.get(), result);
          pair.wants_write = why == SSL_ERROR_WANT_WRITE;
          if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) pair.dead = true;
        }
      }
      if (!pair.client_ended && pair.to_server.size() < kBuffer) {
        const ssize_t n = ::recv(pair.client, buffer, sizeof buffer, 0);
        if (n > 0) pair.to_server.append(buffer, static_cast<std::size_t>(n));
        if (n == 0) pair.client_ended = true;
        if (n < 0 && errno != EAGAIN) pair.dead = pair.was_reset = true;
        moved = moved || n >= 0;
      }
      if (!pair.ready || pair.dead) continue;
      if (!pair.to_server.empty()) {
        const int n =
            SSL_write(pair.ssl.get(), pair.to_server.data(), static_cast<int>(pair.to_server.size()));
        if (n > 0) {
          pair.to_server.erase(0, static_cast<std::size_t>(n));
          moved = true;
        } else if (SSL_get_error(pair.ssl.get(), n) == SSL_ERROR_WANT_WRITE) {
          pair.wants_write = true;
        } else {
          pair.to_server.clear();  // the server has ended; what it said is still to be read
          pair.client_ended = true;
        }
      } else if (pair.client_ended && !pair.said_end) {
        pair.said_end = true;
        SSL_shutdown(pair.ssl.get());
        ::shutdown(pair.server, SHUT_WR);
      }
      if (!pair.server_ended && pair.to_client.empty()) {
        ERR_clear_error();
        const int n = SSL_read(pair.ssl.get(), buffer, sizeof buffer);
        if (n > 0) {
          pair.to_client.assign(buffer, static_cast<std::size_t>(n));
          moved = true;
        } else if (SSL_get_error(pair.ssl.get(), n) != SSL_ERROR_WANT_READ) {
          pair.server_ended = true;
        }
      }
      if (!pair.to_client.empty()) {
        const ssize_t n = ::send(pair.client, pair.to_client.data(), pair.to_client.size(), MSG_NOSIGNAL);
        if (n > 0) {
          pair.to_client.erase(0, static_cast<std::size_t>(n));
          moved = true;
        } else if (errno != EAGAIN) {
          pair.dead = true;
        }
      } else if (pair.server_ended && !pair.told_end) {
        pair.told_end = true;
        ::shutdown(pair.client, SHUT_WR);
      }
      if (pair.client_ended && pair.server_ended && pair.to_client.empty()) pair.dead = true;
    }
  }

  static void end(Pair& pair) {
    if (pair.was_reset) {
      const linger hard{1, 0};
      ::setsockopt(pair.server, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    pair.ssl.reset();
    ::close(pair.server);
    ::close(pair.client);
  }

  static constexpr std::size_t kBuffer = 16384;
  const int target_;
  const TestContext context_;
  int listener_ = -1;
  int port_ = 0;
  int wake_[2] = {-1, -1};
  std::list<Pair> pairs_;
  std::thread thread_;
};

}  // namespace mcpgw::testing
