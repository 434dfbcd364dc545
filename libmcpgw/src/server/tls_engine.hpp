// TLS of the server's side. The engine sees no socket: it is given the bytes that came and appends those that
// are to go out to a buffer, so the loop keeps its one receive and one send.
#pragma once

#include <sys/types.h>

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "mcpgw/server.hpp"
#include "runtime/tls.hpp"

namespace mcpgw::detail::server {

/// One connection's TLS. On its loop only.
class TlsEngine {
 public:
  static constexpr int kAgain = -2;  ///< all that came is used up

  /// nullptr when OpenSSL refuses.
  static std::unique_ptr<TlsEngine> create(SSL_CTX* context);

  /// Bytes from the client. They must live until handshake() or read() has returned kAgain or failed.
  void receive(std::string_view bytes) noexcept { in_ = bytes; }
  /// 1: done; kAgain; -1: failed.
  int handshake();
  bool ready() const noexcept { return SSL_is_init_finished(ssl_.get()) != 0; }
  /// Decrypted bytes; 0: the client has ended its side; kAgain; -1: broken.
  ssize_t read(char* data, std::size_t size);
  /// Encrypts up to one record's worth; how much it was, or -1.
  ssize_t write(std::string_view data);
  /// Announces the end of our bytes.
  void say_goodbye();

  /// What is to be sent; the owner takes it off the front.
  std::string& out() noexcept { return out_; }

 private:
  friend struct EngineBio;
  TlsEngine() = default;
  int outcome(int result) noexcept;

  SslPtr ssl_;
  std::string_view in_;
  std::string out_;
  bool broken_ = false;
};

/// The certificate in force. Safe from any thread.
class TlsListener {
 public:
  /// invalid_argument/"invalid_tls" with the field that is wrong.
  static Result<std::shared_ptr<TlsListener>> create(TlsOptions options);

  std::unique_ptr<TlsEngine> engine() const;
  /// Reads the files again; on an error nothing changes.
  Status reload();

 private:
  explicit TlsListener(TlsOptions options) : options_(std::move(options)) {}
  Result<std::shared_ptr<SSL_CTX>> load() const;

  const TlsOptions options_;
  mutable std::mutex mutex_;
  std::shared_ptr<SSL_CTX> context_;  ///< guarded by mutex_
};

}  // namespace mcpgw::detail::server
