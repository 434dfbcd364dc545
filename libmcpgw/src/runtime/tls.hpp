// TLS for outgoing connections: OpenSSL on a non-blocking socket.
#pragma once

#include <openssl/ssl.h>
#include <sys/types.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "mcpgw/result.hpp"

namespace mcpgw::detail {

struct HttpClientOptions;

struct SslDeleter {
  void operator()(SSL_CTX* context) const noexcept { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const noexcept { SSL_free(ssl); }
  void operator()(SSL_SESSION* session) const noexcept { SSL_SESSION_free(session); }
};
using SslContextPtr = std::unique_ptr<SSL_CTX, SslDeleter>;
using SslPtr = std::unique_ptr<SSL, SslDeleter>;
using SslSessionPtr = std::unique_ptr<SSL_SESSION, SslDeleter>;

/// A kind of BIO over bytes of our own. Made once and kept: OpenSSL counts kinds, and has few of them.
const BIO_METHOD* make_bio_method(const char* name, int (*write)(BIO*, const char*, int),
                                  int (*read)(BIO*, char*, int), long (*control)(BIO*, int, long, void*));
/// For a key's passphrase OpenSSL would ask on the terminal; with this it gets none.
int no_passphrase(char*, int, int, void*);

/// Sessions to resume, one an origin. Belongs to one loop.
class TlsSessionCache {
 public:
  void put(const std::string& origin, SslSessionPtr session);
  /// Hands the session out: a ticket should be used once.
  SslSessionPtr take(const std::string& origin);

 private:
  static constexpr std::size_t kMax = 64;
  std::map<std::string, SslSessionPtr> sessions_;
};

/// The settings of one client, shared by its connections. Safe from any thread once made.
class TlsContext {
 public:
  /// invalid_argument when the certificates or keys cannot be used.
  static Result<std::shared_ptr<TlsContext>> create(const HttpClientOptions& options);
  SSL_CTX* get() const noexcept { return context_.get(); }
  bool verify() const noexcept { return verify_; }

 private:
  SslContextPtr context_;
  bool verify_ = true;
};

/// One connection's TLS. Results are those of Connection: bytes, 0 at a clean end, -1, kAgain (-2).
class TlsSession {
 public:
  /// nullptr when OpenSSL refuses. `fd` stays the caller's. `cache` may be null and outlives the session.
  static std::unique_ptr<TlsSession> create(const TlsContext& context, int fd, const std::string& host,
                                            std::string cache_key, std::shared_ptr<TlsSessionCache> cache);
  ~TlsSession();

  int handshake();
  ssize_t read(char* data, std::size_t size);
  ssize_t write(std::string_view data);
  /// close_notify, as far as it fits; the peer's is not waited for.
  void say_goodbye();
  bool has_pending() const noexcept { return SSL_has_pending(ssl_.get()) != 0; }
  /// The last operation waits for the socket to be writable rather than readable.
  bool wants_write() const noexcept { return wants_write_; }
  bool resumed() const noexcept { return SSL_session_reused(ssl_.get()) != 0; }
  int io_error() const noexcept { return io_error_; }
  /// Bytes of application data that went to the system, at most.
  std::size_t sent() const noexcept { return sent_; }
  /// Why the handshake or an operation failed, for the log.
  std::string failure() const;

 private:
  TlsSession() = default;
  int outcome(int result);
  friend struct SocketBio;
  static int keep_session(SSL* ssl, SSL_SESSION* session);
  friend class TlsContext;

  SslPtr ssl_;
  int fd_ = -1;
  bool wants_write_ = false;
  bool broken_ = false;
  int io_error_ = 0;
  std::size_t sent_ = 0;
  unsigned long error_ = 0;
  std::string cache_key_;
  std::shared_ptr<TlsSessionCache> cache_;
};

}  // namespace mcpgw::detail
