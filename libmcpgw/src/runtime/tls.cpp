#include "runtime/tls.hpp"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <cerrno>

#include "runtime/http_client.hpp"

namespace mcpgw::detail {

constexpr int kAgain = -2;

const BIO_METHOD* make_bio_method(const char* name, int (*write)(BIO*, const char*, int),
                                  int (*read)(BIO*, char*, int), long (*control)(BIO*, int, long, void*)) {
  BIO_METHOD* const made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, name);
  BIO_meth_set_write(made, write);
  BIO_meth_set_read(made, read);
  BIO_meth_set_ctrl(made, control);
  BIO_meth_set_create(made, [](BIO* bio) {
    BIO_set_init(bio, 1);
    return 1;
  });
  return made;
}

int no_passphrase(char*, int, int, void*) { return 0; }

// A BIO of our own because OpenSSL's writes with write(2), which raises SIGPIPE in the host's process.
struct SocketBio {
  static TlsSession& session(BIO* bio) { return *static_cast<TlsSession*>(BIO_get_data(bio)); }

  static int write(BIO* bio, const char* data, int size) {
    TlsSession& self = session(bio);
    BIO_clear_retry_flags(bio);
    const ssize_t n = ::send(self.fd_, data, static_cast<std::size_t>(size), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      if (SSL_is_init_finished(self.ssl_.get())) self.sent_ += static_cast<std::size_t>(n);
      return static_cast<int>(n);
    }
    self.io_error_ = errno;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) BIO_set_retry_write(bio);
    return -1;
  }

  static int read(BIO* bio, char* data, int size) {
    TlsSession& self = session(bio);
    BIO_clear_retry_flags(bio);
    const ssize_t n = ::recv(self.fd_, data, static_cast<std::size_t>(size), MSG_DONTWAIT);
    if (n > 0) return static_cast<int>(n);
    if (n == 0) {
      BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
      return 0;
    }
    self.io_error_ = errno;
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) BIO_set_retry_read(bio);
    return -1;
  }

  static long control(BIO* bio, int command, long, void*) {
    if (command == BIO_CTRL_FLUSH) return 1;
    if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
    return 0;
  }

  static const BIO_METHOD* method() {
    static const BIO_METHOD* const made = make_bio_method("mcpgw socket", write, read, control);
    return made;
  }
};

namespace {

struct BioDeleter {
  void operator()(BIO* bio) const noexcept { BIO_free(bio); }
};
struct CertificateDeleter {
  void operator()(X509* certificate) const noexcept { X509_free(certificate); }
};
struct KeyDeleter {
  void operator()(EVP_PKEY* key) const noexcept { EVP_PKEY_free(key); }
};
using BioPtr = std::unique_ptr<BIO, BioDeleter>;
using CertificatePtr = std::unique_ptr<X509, CertificateDeleter>;
using KeyPtr = std::unique_ptr<EVP_PKEY, KeyDeleter>;

constexpr std::string_view kHttp11 = "http/1.1";

BioPtr text_bio(const std::string& text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

Error bad(const char* field, const char* message) {
  return {ErrorCode::invalid_argument, "invalid_tls", message, field};
}

/// Calls `take` for each certificate of a PEM text; false when there is none, or anything is damaged.
template <class F>
bool for_each_certificate(const std::string& pem, F take) {
  const BioPtr bio = text_bio(pem);
  std::size_t count = 0;
  for (;; ++count) {
    const CertificatePtr certificate(PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr));
    if (!certificate) break;
    if (!take(certificate.get(), count)) return false;
  }
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  ERR_clear_error();
  return at_end && count > 0;
}

Status load_authorities(SSL_CTX* context, const HttpClientOptions& options) {
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  if (options.ca.empty()) {
    SSL_CTX_set_default_verify_paths(context);
  } else if (!for_each_certificate(options.ca, [store](X509* certificate, std::size_t) {
               return X509_STORE_add_cert(store, certificate) == 1;
             })) {
    return bad("ca", "The CA certificates are not valid PEM");
  }
  if (!options.ca_file.empty() && SSL_CTX_load_verify_file(context, options.ca_file.c_str()) != 1)
    return bad("ca_file", "The file of CA certificates cannot be read or is not valid PEM");
  return {};
}

Status load_client_certificate(SSL_CTX* context, const HttpClientOptions& options) {
  if (options.client_cert.empty() && options.client_key.empty()) return {};
  if (options.client_cert.empty()) return bad("client_cert", "A client key needs its certificate");
  if (options.client_key.empty()) return bad("client_key", "A client certificate needs its key");
  const bool loaded =
      for_each_certificate(options.client_cert, [context](X509* certificate, std::size_t index) {
        return (index == 0 ? SSL_CTX_use_certificate(context, certificate)
                           : SSL_CTX_add1_chain_cert(context, certificate)) == 1;
      });
  if (!loaded) return bad("client_cert", "The client certificate is not valid PEM");
  const KeyPtr key(
      PEM_read_bio_PrivateKey(text_bio(options.client_key).get(), nullptr, no_passphrase, nullptr));
  if (!key) return bad("client_key", "The client key is not a valid PEM key without passphrase");
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1)
    return bad("client_key", "The client key does not belong to the certificate");
  return {};
}

}  // namespace

void TlsSessionCache::put(const std::string& origin, SslSessionPtr session) {
  if (sessions_.size() >= kMax && sessions_.find(origin) == sessions_.end())
    sessions_.erase(sessions_.begin());
  sessions_[origin] = std::move(session);
}

SslSessionPtr TlsSessionCache::take(const std::string& origin) {
  const auto it = sessions_.find(origin);
  if (it == sessions_.end()) return nullptr;
  SslSessionPtr session = std::move(it->second);
  sessions_.erase(it);
  return session;
}

Result<std::shared_ptr<TlsContext>> TlsContext::create(const HttpClientOptions& options) {
  auto out = std::make_shared<TlsContext>();
  out->verify_ = options.verify;
  out->context_.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* context = out->context_.get();
  if (context == nullptr) return Error(ErrorCode::internal, "tls", "OpenSSL could not be set up");
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_default_passwd_cb(context, no_passphrase);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context, TlsSession::keep_session);
  const std::string protocols = static_cast<char>(kHttp11.size()) + std::string(kHttp11);
  SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(protocols.data()),
                          static_cast<unsigned>(protocols.size()));
  Status status = load_authorities(context, options);
  if (status) status = load_client_certificate(context, options);
  ERR_clear_error();
  if (!status) return status.error();
  return out;
}

std::unique_ptr<TlsSession> TlsSession::create(const TlsContext& context, int fd, const std::string& host,
                                               std::string cache_key,
                                               std::shared_ptr<TlsSessionCache> cache) {
  std::unique_ptr<TlsSession> self(new TlsSession());
  self->fd_ = fd;
  self->cache_key_ = std::move(cache_key);
  self->cache_ = std::move(cache);
  self->ssl_.reset(SSL_new(context.get()));
  SSL* ssl = self->ssl_.get();
  if (ssl == nullptr) return nullptr;
  BIO* bio = BIO_new(SocketBio::method());
  if (bio == nullptr) return nullptr;
  BIO_set_data(bio, self.get());
  SSL_set_bio(ssl, bio, bio);
  SSL_set_app_data(ssl, self.get());
  SSL_set_connect_state(ssl);

  std::string name = host;
  if (!name.empty() && name.back() == '.') name.pop_back();
  unsigned char binary[16];
  const bool literal =
      inet_pton(AF_INET, name.c_str(), binary) == 1 || inet_pton(AF_INET6, name.c_str(), binary) == 1;
  if (!literal && SSL_set_tlsext_host_name(ssl, name.c_str()) != 1) return nullptr;
  if (context.verify()) {
    SSL_set_verify(ssl, SSL_VERIFY_PEER, nullptr);
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    const int named = literal ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str())
                              : SSL_set1_host(ssl, name.c_str());
    if (named != 1) return nullptr;
  } else {
    SSL_set_verify(ssl, SSL_VERIFY_NONE, nullptr);
  }
  if (self->cache_) {
    if (const SslSessionPtr session = self->cache_->take(self->cache_key_))
      SSL_set_session(ssl, session.get());
  }
  return self;
}

TlsSession::~TlsSession() = default;

int TlsSession::keep_session(SSL* ssl, SSL_SESSION* session) {
  auto* self = static_cast<TlsSession*>(SSL_get_app_data(ssl));
  if (self == nullptr || !self->cache_) return 0;
  self->cache_->put(self->cache_key_, SslSessionPtr(session));
  return 1;  // the reference is ours now
}

int TlsSession::outcome(int result) {
  const int saved = io_error_;
  wants_write_ = false;
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_NONE:
      return result;
    case SSL_ERROR_WANT_READ:
      return kAgain;
    case SSL_ERROR_WANT_WRITE:
      wants_write_ = true;
      return kAgain;
    case SSL_ERROR_ZERO_RETURN:
      return 0;
    default:
      break;
  }
  broken_ = true;
  error_ = ERR_peek_last_error();
  ERR_clear_error();
  io_error_ = saved == EAGAIN || saved == EWOULDBLOCK || saved == 0 ? EPROTO : saved;
  return -1;
}

int TlsSession::handshake() {
  ERR_clear_error();
  io_error_ = 0;
  const int result = outcome(SSL_do_handshake(ssl_.get()));
  if (result != 1) return result == kAgain ? kAgain : -1;
  const unsigned char* protocol = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl_.get(), &protocol, &size);
  if (size != 0 && std::string_view(reinterpret_cast<const char*>(protocol), size) != kHttp11) {
    broken_ = true;
    return -1;
  }
  return 1;
}

ssize_t TlsSession::read(char* data, std::size_t size) {
  ERR_clear_error();
  io_error_ = 0;
  return outcome(SSL_read(ssl_.get(), data, static_cast<int>(std::min<std::size_t>(size, 1 << 30))));
}

ssize_t TlsSession::write(std::string_view data) {
  ERR_clear_error();
  io_error_ = 0;
  const ssize_t n = outcome(
      SSL_write(ssl_.get(), data.data(), static_cast<int>(std::min<std::size_t>(data.size(), 1 << 30))));
  if (n == 0) {  // the peer has closed its side
    io_error_ = EPIPE;
    return -1;
  }
  return n;
}

void TlsSession::say_goodbye() {
  if (broken_ || !SSL_is_init_finished(ssl_.get())) return;
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

std::string TlsSession::failure() const {
  const long verified = SSL_get_verify_result(ssl_.get());
  if (verified != X509_V_OK) return std::string("certificate: ") + X509_verify_cert_error_string(verified);
  if (error_ != 0) {
    const char* reason = ERR_reason_error_string(error_);
    return reason != nullptr ? reason : "protocol error";
  }
  return "connection closed";
}

}  // namespace mcpgw::detail
