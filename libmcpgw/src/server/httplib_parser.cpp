#include "server/httplib_parser.hpp"

#include <httplib.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string_view>

#include "base/accept_encoding.hpp"
#include "base/text.hpp"

namespace mcpgw::detail::server {
namespace {

// A line longer than httplib's own limit of 8 KiB is refused by it although ours is higher.
constexpr std::size_t kMaxLine = 8000;
constexpr std::size_t kMaxLines = 90;  // newer versions refuse more than 100

/// The head in memory. Versions of httplib differ in what a Stream must have: all of it is here, and none
/// says `override`, which some of it could not (clang wants it everywhere or nowhere).
class MemoryStream final : public httplib::Stream {
 public:
  void reset(const std::string& text) noexcept {
    at_ = text.data();
    left_ = text.size();
  }

  bool is_readable() const { return left_ != 0; }
  bool is_writable() const { return true; }
  bool wait_readable() const { return left_ != 0; }
  bool wait_writable() const { return true; }
  bool is_peer_alive() const { return true; }
  time_t duration() const { return 0; }
  void set_read_timeout(time_t, time_t = 0) {}

  ssize_t read(char* out, std::size_t size) {
    if (size == 1 && left_ != 0) {  // how 0.11 reads lines
      *out = *at_++;
      --left_;
      return 1;
    }
    const std::size_t take = std::min(size, left_);
    std::memcpy(out, at_, take);
    at_ += take;
    left_ -= take;
    return static_cast<ssize_t>(take);
  }
  // Answers are rendered by us (they come later and from other threads): what httplib writes goes nowhere.
  ssize_t write(const char*, std::size_t size) { return static_cast<ssize_t>(size); }

  /// Must be nullptr at the end: newer versions loop on an empty buffer otherwise.
  const char* buffered_data(std::size_t& size) const {
    size = left_;
    return left_ == 0 ? nullptr : at_;
  }
  void consume_buffered(std::size_t size) {
    at_ += size;
    left_ -= size;
  }

  void get_remote_ip_and_port(std::string& ip, int& port) const {
    ip.clear();
    port = 0;
  }
  void get_local_ip_and_port(std::string& ip, int& port) const {
    ip.clear();
    port = 0;
  }
  socket_t socket() const { return 0; }

 private:
  const char* at_ = nullptr;
  std::size_t left_ = 0;
};

using Setup = std::function<void(httplib::Request&)>;

// process_request has had three signatures: the member pointer's type picks the one of the installed version.
template <class S>
bool call_process_request(S& server,
                          bool (httplib::Server::*process)(httplib::Stream&, bool, bool&,
                                                           const Setup&),  // <= 0.17
                          httplib::Stream& stream, const Setup& setup) {
  bool closed = false;
  return (server.*process)(stream, false, closed, setup);
}
template <class S>
bool call_process_request(S& server,
                          bool (httplib::Server::*process)(httplib::Stream&, const std::string&, int,
                                                           const std::string&, int, bool, bool&,
                                                           const Setup&),  // 0.18
                          httplib::Stream& stream, const Setup& setup) {
  bool closed = false;
  return (server.*process)(stream, std::string(), 0, std::string(), 0, false, closed, setup);
}
template <class S>
bool call_process_request(S& server,
                          bool (httplib::Server::*process)(httplib::Stream&, const std::string&, int,
                                                           const std::string&, int, bool, bool&, const Setup&,
                                                           bool*),  // 0.33
                          httplib::Stream& stream, const Setup& setup) {
  bool closed = false;
  return (server.*process)(stream, std::string(), 0, std::string(), 0, false, closed, setup, nullptr);
}

bool httplib_knows(std::string_view method) noexcept {
  return method == "POST" || method == "GET" || method == "DELETE" || method == "PUT" ||
         method == "OPTIONS" || method == "HEAD" || method == "PATCH";
}

/// "http://host/path" is "/path" asked of "host" (RFC 9112 3.2.2).
struct Target {
  std::string_view path;
  std::string_view authority;  ///< data() is nullptr in the usual form
};
Target split_target(std::string_view target) noexcept {
  if (target.empty() || target.front() == '/' || target.front() == '*') return {target, {}};
  std::string_view rest = target.substr(target.find("://") + 3);
  const auto end = rest.find_first_of("/?");
  if (end == std::string_view::npos) return {"/", rest};
  return {rest.substr(end), rest.substr(0, end)};
}

}  // namespace

class HttplibParser::Engine : public httplib::Server {
 public:
  Engine() {
    set_pre_routing_handler([](const httplib::Request&, httplib::Response& response) {
      response.status = 204;
      return HandlerResponse::Handled;
    });
    probe();
  }

  bool parse(RequestReader& reader, HttpRequest& out) {
    const Target target = split_target(reader.target());
    const bool plain_method = httplib_knows(reader.method());
    // httplib refuses a second question mark, which RFC 3986 allows in a query.
    const bool plain_target =
        target.path.front() == '/' && std::count(target.path.begin(), target.path.end(), '?') <= 1;
    text_.assign(plain_method ? reader.method() : "GET").append(" ");
    text_.append(plain_target ? target.path : "/")
        .append(reader.http11() ? " HTTP/1.1\r\n" : " HTTP/1.0\r\n");

    out.headers.clear();
    out.headers.reserve(reader.header_count() + 4);
    lines_ = 0;
    for (std::size_t i = 0; i < reader.header_count(); ++i) {
      const HeaderView header = reader.header(i);
      if (target.authority.data() != nullptr && iequals(header.name, "host")) {
        out.headers.emplace_back(std::string(header.name), std::string(target.authority));
      } else if (!carried(header)) {
        out.headers.emplace_back(std::string(header.name), std::string(header.value));
      } else {
        append_line(header);
      }
    }
    text_ += "\r\n";
    request_ = &out;
    if (!run()) return false;
    if (!plain_method) out.method = reader.method();
    if (!plain_target) out.target = std::string(target.path.front() == '?' ? "/" : "").append(target.path);
    if (target.authority.data() != nullptr && out.header("Host") == nullptr)
      out.headers.emplace_back("Host", std::string(target.authority));
    return true;
  }

 private:
  /// Whether httplib hands a header on unchanged and does nothing of its own because of it.
  bool carried(const HeaderView& header) const noexcept {
    if (header.value.empty() || header.name.size() + header.value.size() > kMaxLine || lines_ >= kMaxLines)
      return false;
    switch (header.name.size()) {
      case 5:
        return !iequals(header.name, "range");  // a malformed one would be answered 416, a good one obeyed
      case 6:
        return !iequals(header.name, "expect");
      case 7:
        return !iequals(header.name, "upgrade");
      case 10:
        return !iequals(header.name, "connection") && !injected(header.name);
      case 14:
        return !iequals(header.name, "content-length");  // the body is not in the stream
      case 15:
        return !iequals(header.name, "accept-encoding");
      case 17:
        return !iequals(header.name, "transfer-encoding");
      default:
        return !injected(header.name);
    }
  }

  bool injected(std::string_view name) const noexcept {
    return std::any_of(injected_.begin(), injected_.end(),
                       [&](const std::string& own) { return iequals(own, name); });
  }

  void append_line(const HeaderView& header) {
    ++lines_;
    text_.append(header.name).append(": ");
    if (decodes_ && header.value.find('%') != std::string_view::npos) {
      for (const char c : header.value) {
        text_ += c;
        if (c == '%') text_ += "25";
      }
    } else {
      text_.append(header.value);
    }
    text_ += "\r\n";
  }

  bool run() {
    ready_ = false;
    stream_.reset(text_);
    call_process_request(*this, &Engine::process_request, stream_, setup_);
    return ready_;
  }

  void take(httplib::Request& request) {
    ready_ = true;
    request_->method = request.method;
    request_->target = std::move(request.target);
    for (auto& [name, value] : request.headers) {
      if (injected(name)) continue;  // the client's own header of such a name went around httplib
      request_->headers.emplace_back(name, std::move(value));
    }
  }

  /// What this version does is asked of it, not of its version number.
  void probe() {
    HttpRequest seen;
    request_ = &seen;
    text_ = "GET / HTTP/1.1\r\nX-Probe: a%25b\r\n\r\n";
    run();
    for (auto& [name, value] : seen.headers) {
      if (name == "X-Probe") {
        decodes_ = value == "a%b";
      } else {
        injected_.push_back(name);  // REMOTE_ADDR and the like
      }
    }
  }

  const Setup setup_ = [this](httplib::Request& request) { take(request); };
  MemoryStream stream_;
  std::string text_;
  HttpRequest* request_ = nullptr;
  std::vector<std::string> injected_;
  std::size_t lines_ = 0;
  bool decodes_ = false;
  bool ready_ = false;
};

HttplibParser::HttplibParser() : engine_(std::make_unique<Engine>()) {}
HttplibParser::~HttplibParser() = default;

bool HttplibParser::parse(RequestReader& reader, HttpRequest& out, bool& gzip, const KnownHead* known) {
  if (known == nullptr) known = known_.find(reader.head_bytes());
  if (known != nullptr) {
    out.method = known->request.method;
    out.target = known->request.target;
    out.headers = known->request.headers;
    if (const auto length = reader.head().length; length.size != 0)
      out.headers[known->length_header].second = reader.text(length);
    gzip = known->gzip;
  } else {
    if (!engine_->parse(reader, out)) return false;
    gzip = accepts_gzip(out.headers);
    known_.keep(reader.head_bytes(), reader.head(), out, gzip);
  }
  out.body = reader.take_body();
  return true;
}

}  // namespace mcpgw::detail::server
