// A running server over HTTP. The token comes from the environment or a file and goes to that server alone:
// redirects are not followed.
#include <httplib.h>
#include <sys/stat.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>

#include "cli.hpp"

namespace mcpgw::app {

namespace {

constexpr std::size_t kMaxAnswer = 64 * 1024 * 1024;
constexpr std::size_t kMaxToken = 16384;
constexpr time_t kConnectSeconds = 10, kAnswerSeconds = 90;

Error wrong(std::string message) { return {ErrorCode::invalid_argument, "wrong_usage", std::move(message)}; }

struct ServerUrl {
  std::string origin;  ///< "https://host:port"
  std::string path;    ///< in front of every route; no slash at its end
};

bool is_loopback_host(std::string_view host) {
  return host == "localhost" || host == "[::1]" || host.substr(0, 4) == "127.";
}

Result<ServerUrl> parse_server_url(const ServerOptions& options) {
  const std::string& url = options.url;
  const auto scheme = url.find("://");
  const std::string name = scheme == std::string::npos ? "" : url.substr(0, scheme);
  const auto slash = scheme == std::string::npos ? scheme : url.find('/', scheme + 3);
  ServerUrl out{url.substr(0, slash), slash == std::string::npos ? "" : url.substr(slash)};
  while (!out.path.empty() && out.path.back() == '/') out.path.pop_back();
  const std::string authority = scheme == std::string::npos ? "" : out.origin.substr(scheme + 3);
  const bool plain = std::all_of(url.begin(), url.end(), [](char c) { return c > ' ' && c < 0x7f; });
  if ((name != "http" && name != "https") || authority.empty() || !plain ||
      url.find_first_of("?#@") != std::string::npos)
    return wrong("--server must be a URL such as https://mcp.example.com, without user, query and fragment");
  const auto port = authority.rfind(':');
  const bool has_port = port != std::string::npos && authority.find(']', port) == std::string::npos;
  const auto digits = has_port ? authority.substr(port + 1) : std::string("443");
  if (digits.empty() || digits.size() > 5 || digits.find_first_not_of("0123456789") != std::string::npos)
    return wrong("--server has a port that is no number");
  if (name == "http" && !options.plain_http &&
      !is_loopback_host(authority.substr(0, has_port ? port : std::string::npos)))
    return wrong(
        "--server would get the token unencrypted: use https, or --plain-http where the network is safe");
  return out;
}

Result<std::string> read_token(const ServerOptions& options) {
  std::string token;
  if (!options.token_file.empty()) {
    struct stat info {};
    std::ifstream file(options.token_file, std::ios::binary);
    if (!file || ::stat(options.token_file.c_str(), &info) != 0 || !S_ISREG(info.st_mode))
      return wrong(options.token_file + " cannot be read as a file");
    token.resize(kMaxToken + 1);
    file.read(token.data(), static_cast<std::streamsize>(token.size()));
    token.resize(static_cast<std::size_t>(file.gcount()));
  } else if (const char* variable = std::getenv("MCPGW_TOKEN")) {
    token = variable;
  }
  while (!token.empty() && std::isspace(static_cast<unsigned char>(token.back()))) token.pop_back();
  if (token.empty())
    return wrong(
        "--server needs an API token of scope api: in the environment variable MCPGW_TOKEN or a "
        "--token-file");
  if (token.size() > kMaxToken ||
      !std::all_of(token.begin(), token.end(), [](char c) { return c > ' ' && c < 0x7f; }))
    return wrong("what was given as a token is none");
  return token;
}

/// Paths are sent as they are given. What says so has another name in later releases of httplib.
template <class Client>
void keep_paths(Client& client) {
  if constexpr (requires { client.set_path_encode(false); })
    client.set_path_encode(false);
  else
    client.set_url_encode(false);
}

class RemoteBackend final : public Backend {
 public:
  RemoteBackend(const ServerOptions& options, ServerUrl url, std::string token)
      : url_(std::move(url)), token_(std::move(token)), client_(url_.origin) {
    client_.set_connection_timeout(kConnectSeconds);
    client_.set_read_timeout(kAnswerSeconds);
    client_.set_write_timeout(kAnswerSeconds);
    client_.set_follow_location(false);
    keep_paths(client_);
    client_.set_keep_alive(true);
    client_.enable_server_certificate_verification(true);
    if (!options.ca_file.empty()) client_.set_ca_cert_path(options.ca_file.c_str());
  }

  Result<HttpResponse> send(HttpRequest request) override {
    httplib::Request out;
    out.method = request.method;
    out.path = url_.path + request.target;
    for (const auto& [name, value] : request.headers) out.headers.emplace(name, value);
    out.body = std::move(request.body);
    HttpResponse answer;
    bool too_large = false;
    out.content_receiver = [&](const char* data, std::size_t size, std::uint64_t, std::uint64_t) {
      too_large = answer.body.size() + size > kMaxAnswer;
      if (!too_large) answer.body.append(data, size);
      return !too_large;
    };
    const auto result = client_.send(out);
    if (!result)
      return Error{ErrorCode::unavailable, "server_unreachable",
                   too_large ? "The answer of the server is too large"
                             : url_.origin + " does not answer: " + httplib::to_string(result.error())};
    answer.status = result->status;
    for (const auto& [name, value] : result->headers) answer.headers.emplace_back(name, value);
    return answer;
  }
  Result<std::string> authorization(const std::string& user_id) override {
    if (!user_id.empty())
      return Error{ErrorCode::unsupported, "local_only",
                   "A server makes tokens for the owner of MCPGW_TOKEN alone"};
    return "Bearer " + token_;
  }
  bool is_local() const override { return false; }

 private:
  const ServerUrl url_;
  const std::string token_;
  httplib::Client client_;
};

}  // namespace

Result<std::unique_ptr<Backend>> make_remote_backend(const ServerOptions& options) {
  auto url = parse_server_url(options);
  if (!url) return url.error();
  auto token = read_token(options);
  if (!token) return token.error();
  auto backend = std::make_unique<RemoteBackend>(options, std::move(*url), std::move(*token));
  return std::unique_ptr<Backend>(std::move(backend));
}

}  // namespace mcpgw::app
