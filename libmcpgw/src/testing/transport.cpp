#include "testing/transport.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

#include "base/text.hpp"

#ifdef MCPGW_HAVE_SERVER
#include "mcpgw/server.hpp"
#endif

namespace mcpgw::testing {
namespace {

class DirectTransport final : public Transport {
 public:
  explicit DirectTransport(std::shared_ptr<Gateway> gateway) : gateway_(std::move(gateway)) {}
  HttpResponse send(HttpRequest request) override { return gateway_->handle(std::move(request)); }

 private:
  const std::shared_ptr<Gateway> gateway_;
};

#ifdef MCPGW_HAVE_SERVER

/// One connection a request: a test client has no need of more.
class SocketTransport final : public Transport {
 public:
  explicit SocketTransport(std::shared_ptr<Gateway> gateway) {
    auto server = HttpServer::start(std::move(gateway));
    if (!server) throw std::runtime_error("the server cannot be started: " + server.error().message);
    server_ = *server;
  }
  ~SocketTransport() override { server_->stop(); }
  int port() const override { return server_->port(); }

  HttpResponse send(HttpRequest request) override {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(server_->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval timeout{120, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      ::close(fd);
      throw std::runtime_error("the server cannot be reached");
    }
    std::string text = request.method + " " + request.target + " HTTP/1.1\r\nConnection: close\r\n";
    if (request.header("Host") == nullptr)
      text += "Host: 127.0.0.1:" + std::to_string(server_->port()) + "\r\n";
    for (const auto& [name, value] : request.headers) text += name + ": " + value + "\r\n";
    if (!request.body.empty() || request.method == "POST" || request.method == "PUT")
      text += "Content-Length: " + std::to_string(request.body.size()) + "\r\n";
    text += "\r\n" + request.body;
    for (std::size_t sent = 0; sent < text.size();) {
      const auto n = ::send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) break;
      sent += static_cast<std::size_t>(n);
    }
    std::string received;
    char buffer[65536];
    for (;;) {
      const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
      if (n < 0 && errno == EINTR) continue;  // a child of this process has ended
      if (n <= 0) break;
      received.append(buffer, static_cast<std::size_t>(n));
    }
    ::close(fd);
    return parse(received);
  }

 private:
  static HttpResponse parse(const std::string& text) {
    HttpResponse out;
    const auto end = text.find("\r\n\r\n");
    if (text.size() < 12 || end == std::string::npos)
      throw std::runtime_error("the server's answer is no HTTP: " + text);
    out.status = std::stoi(text.substr(9, 3));
    std::size_t at = text.find("\r\n") + 2;
    while (at < end + 2) {
      const auto stop = text.find("\r\n", at);
      const auto colon = text.find(':', at);
      out.headers.emplace_back(text.substr(at, colon - at),
                               std::string(detail::trim(text.substr(colon + 1, stop - colon - 1))));
      at = stop + 2;
    }
    std::string body = text.substr(end + 4);
    const std::string* coding = out.header("Transfer-Encoding");
    if (coding == nullptr) {
      out.body = std::move(body);
      return out;
    }
    for (std::size_t from = 0; from < body.size();) {
      const std::size_t size = std::stoul(body.substr(from), nullptr, 16);
      if (size == 0) break;
      from = body.find("\r\n", from) + 2;
      out.body += body.substr(from, size);
      from += size + 2;
    }
    return out;
  }

  std::shared_ptr<HttpServer> server_;
};

#endif

}  // namespace

std::unique_ptr<Transport> make_direct_transport(std::shared_ptr<Gateway> gateway) {
  return std::make_unique<DirectTransport>(std::move(gateway));
}

std::unique_ptr<Transport> make_socket_transport(std::shared_ptr<Gateway> gateway) {
#ifdef MCPGW_HAVE_SERVER
  return std::make_unique<SocketTransport>(std::move(gateway));
#else
  (void)gateway;
  throw std::runtime_error("this build has no HTTP server");
#endif
}

}  // namespace mcpgw::testing
