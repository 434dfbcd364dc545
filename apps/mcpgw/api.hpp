// The REST API of a gateway, for the commands that manage what is stored. Two ways lead to it, and no command
// knows which it is: a gateway of this process over the configured storage, where the person at the keyboard
// is a local administrator, or a running server over HTTP.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "config.hpp"
#include "mcpgw/http.hpp"
#include "mcpgw/result.hpp"
#include "output.hpp"

namespace mcpgw::app {

struct ServerOptions {
  std::string url;
  std::string token_file;
  std::string ca_file;      ///< PEM; empty: the system's
  bool plain_http = false;  ///< the token may cross a network unencrypted
};

/// How a request gets to a gateway.
class Backend {
 public:
  virtual ~Backend() = default;
  /// An answer of any status, or why there is none.
  virtual Result<HttpResponse> send(HttpRequest request) = 0;
  /// What a request must carry to act as this user; empty: as the one who asks.
  virtual Result<std::string> authorization(const std::string& user_id) = 0;
  virtual bool is_local() const = 0;
};

struct Opened;
/// `opened` keeps its storage until the end.
Result<std::unique_ptr<Backend>> make_local_backend(Opened opened);
/// invalid_argument: the options are wrong.
Result<std::unique_ptr<Backend>> make_remote_backend(const ServerOptions& options);

class Api {
 public:
  explicit Api(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}

  bool is_local() const { return backend_->is_local(); }

  /// The body of a success; null when it has none. Else what the gateway says is wrong, `reason` being its
  /// code.
  Result<Json> call(const std::string& method, const std::string& path, const Json& body = nullptr,
                    const std::string& as_user = {});
  /// The whole answer. Errors as above.
  Result<HttpResponse> exchange(const std::string& method, const std::string& path, const Json& body,
                                const std::string& as_user);
  /// Every page of a list.
  Result<Json> list(const std::string& path);

  // One object by what people call it, or by its id. not_found when there is none.
  Result<Json> user(const std::string& email);
  Result<Json> target(const std::string& name);
  /// conflict when several have that name.
  Result<Json> policy(const std::string& name);

 private:
  const std::unique_ptr<Backend> backend_;
};

/// A path segment or a query value.
std::string encoded(std::string_view text);

}  // namespace mcpgw::app
