#include "server/tls_engine.hpp"

#include <openssl/err.h>
#include <openssl/pem.h>

#include <algorithm>
#include <cstring>

namespace mcpgw::detail::server {

/// Both ends of the engine as OpenSSL sees them.
struct EngineBio {
  static TlsEngine& engine(BIO* bio) { return *static_cast<TlsEngine*>(BIO_get_data(bio)); }

  static int write(BIO* bio, const char* data, int size) {
    BIO_clear_retry_flags(bio);
    engine(bio).out_.append(data, static_cast<std::size_t>(size));
    return size;
  }

  static int read(BIO* bio, char* data, int size) {
    BIO_clear_retry_flags(bio);
    std::string_view& in = engine(bio).in_;
    if (in.empty()) {
      BIO_set_retry_read(bio);
      return -1;
    }
    const std::size_t take = std::min(in.size(), static_cast<std::size_t>(size));
    std::memcpy(data, in.data(), take);
    in.remove_prefix(take);
    return static_cast<int>(take);
  }

  static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static const BIO_METHOD* method() {
    static const BIO_METHOD* const made = make_bio_method("mcpgw server", write, read, control);
    return made;
  }
};

namespace {

constexpr std::size_t kRecord = 16 * 1024;
constexpr std::string_view kHttp11 = "http/1.1";
// Forward secrecy and authenticated encryption only; TLS 1.3 has nothing else.
constexpr const char* kCiphers12 = "ECDHE+AESGCM:ECDHE+CHACHA20";

Error bad(const char* field, const char* message) {
  return {ErrorCode::invalid_argument, "invalid_tls", message, field};
}

int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_size, const unsigned char* offered,
                    unsigned size, void*) {
  std::string_view rest(reinterpret_cast<const char*>(offered), size);
  while (!rest.empty()) {
    const std::size_t length = static_cast<unsigned char>(rest.front());
    const std::string_view name = rest.substr(1, length);
    if (name == kHttp11) {
      *out = reinterpret_cast<const unsigned char*>(name.data());
      *out_size = static_cast<unsigned char>(length);
      return SSL_TLSEXT_ERR_OK;
    }
    rest.remove_prefix(std::min(rest.size(), length + 1));
  }
  // The client would speak something else to us (RFC 7301 3.2).
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

}  // namespace

std::unique_ptr<TlsEngine> TlsEngine::create(SSL_CTX* context) {
  std::unique_ptr<TlsEngine> self(new TlsEngine());
  self->ssl_.reset(SSL_new(context));
  BIO* bio = self->ssl_ == nullptr ? nullptr : BIO_new(EngineBio::method());
  if (bio == nullptr) {
    ERR_clear_error();
    return nullptr;
  }
  BIO_set_data(bio, self.get());
  SSL_set_bio(self->ssl_.get(), bio, bio);
  SSL_set_accept_state(self->ssl_.get());
  return self;
}

int TlsEngine::outcome(int result) noexcept {
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_NONE:
      return result;
    case SSL_ERROR_WANT_READ:
      return kAgain;
    case SSL_ERROR_ZERO_RETURN:
      return 0;
    default:
      broken_ = true;
      ERR_clear_error();
      return -1;
  }
}

int TlsEngine::handshake() {
  ERR_clear_error();
  const int result = outcome(SSL_do_handshake(ssl_.get()));
  return result == 0 ? -1 : result;
}

ssize_t TlsEngine::read(char* data, std::size_t size) {
  ERR_clear_error();
  return outcome(SSL_read(ssl_.get(), data, static_cast<int>(std::min(size, kRecord))));
}

ssize_t TlsEngine::write(std::string_view data) {
  ERR_clear_error();
  const int n = outcome(SSL_write(ssl_.get(), data.data(), static_cast<int>(std::min(data.size(), kRecord))));
  return n > 0 ? n : -1;
}

void TlsEngine::say_goodbye() {
  if (broken_ || !ready()) return;
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

Result<std::shared_ptr<TlsListener>> TlsListener::create(TlsOptions options) {
  if (options.cert.empty()) return bad("tls.cert", "A TLS key needs its certificate");
  if (options.key.empty()) return bad("tls.key", "A TLS certificate needs its key");
  std::shared_ptr<TlsListener> self(new TlsListener(std::move(options)));
  auto context = self->load();
  if (!context) return context.error();
  self->context_ = std::move(*context);
  return self;
}

Result<std::shared_ptr<SSL_CTX>> TlsListener::load() const {
  std::shared_ptr<SSL_CTX> out(SSL_CTX_new(TLS_server_method()), SslDeleter());
  SSL_CTX* context = out.get();
  if (context == nullptr) return Error(ErrorCode::internal, "tls", "OpenSSL could not be set up");
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                   SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_default_passwd_cb(context, no_passphrase);
  SSL_CTX_set_alpn_select_cb(context, choose_protocol, nullptr);
  // Sessions are resumed by tickets under a key of this context: nothing is kept here, and a reload ends
  // them.
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 1);
  static constexpr unsigned char kName[] = "mcpgw";
  SSL_CTX_set_session_id_context(context, kName, sizeof kName - 1);

  const auto checked = [&]() -> Status {
    if (SSL_CTX_set_cipher_list(context, kCiphers12) != 1)
      return Error(ErrorCode::internal, "tls", "OpenSSL lacks the ciphers that are needed");
    if (SSL_CTX_use_certificate_chain_file(context, options_.cert.c_str()) != 1)
      return bad("tls.cert", "The TLS certificate cannot be read or is not valid PEM");
    if (SSL_CTX_use_PrivateKey_file(context, options_.key.c_str(), SSL_FILETYPE_PEM) != 1) {
      // The same call reads the key and holds it against the certificate.
      const bool other = ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH;
      return bad("tls.key", other
                                ? "The TLS key does not belong to the certificate"
                                : "The TLS key cannot be read or is not a valid PEM key without passphrase");
    }
    if (SSL_CTX_check_private_key(context) != 1)
      return bad("tls.key", "The TLS key does not belong to the certificate");
    if (options_.client_ca.empty()) return {};
    if (SSL_CTX_load_verify_file(context, options_.client_ca.c_str()) != 1)
      return bad("tls.client_ca",
                 "The authorities of client certificates cannot be read or are not valid PEM");
    // Tells clients which certificate to choose.
    SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(options_.client_ca.c_str()));
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    return {};
  };
  const Status status = checked();
  ERR_clear_error();
  if (!status) return status.error();
  return out;
}

std::unique_ptr<TlsEngine> TlsListener::engine() const {
  std::shared_ptr<SSL_CTX> context;
  {
    const std::lock_guard lock(mutex_);
    context = context_;
  }
  return TlsEngine::create(context.get());  // which holds a reference of its own
}

Status TlsListener::reload() {
  auto context = load();
  if (!context) return context.error();
  const std::lock_guard lock(mutex_);
  context_.swap(*context);
  return {};
}

}  // namespace mcpgw::detail::server
