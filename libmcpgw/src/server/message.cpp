#include "server/message.hpp"

#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <ctime>

#include "base/moment.hpp"
#include "base/text.hpp"
#include "mcpgw/random.hpp"
#include "server/framing.hpp"

namespace mcpgw::detail::server {
namespace {

/// "Date: ...\r\n", made once a second and thread.
std::string_view date_line() {
  thread_local std::time_t made = 0;
  thread_local std::array<char, 48> line{};
  thread_local std::size_t size = 0;
  const std::time_t now = std::chrono::system_clock::to_time_t(system_now());
  if (now != made) {
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    std::tm utc{};
    ::gmtime_r(&now, &utc);
    const int written = std::snprintf(
        line.data(), line.size(), "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n", kDays[utc.tm_wday],
        utc.tm_mday, kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
    size = written > 0 ? static_cast<std::size_t>(written) : 0;
    made = now;
  }
  return {line.data(), size};
}

void append_number(std::string& out, std::size_t value) {
  std::array<char, 24> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

/// Headers that frame the message or the connection.
bool is_ours(std::string_view name) noexcept {
  switch (name.size()) {
    case 4:
      return iequals(name, "date");
    case 7:
      return iequals(name, "trailer");
    case 10:
      return iequals(name, "connection") || iequals(name, "keep-alive");
    case 14:
      return iequals(name, "content-length");
    case 17:
      return iequals(name, "transfer-encoding");
    default:
      return false;
  }
}

void append_headers(std::string& out, const HttpHeaders& headers) {
  for (const auto& [name, value] : headers) {
    if (is_ours(name) || !is_token(name) || has_control(value, "\t")) continue;
    out += name;
    out += ": ";
    out += value;
    out += "\r\n";
  }
}

}  // namespace

const char* reason_phrase(int status) noexcept {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 203:
      return "Non-Authoritative Information";
    case 204:
      return "No Content";
    case 205:
      return "Reset Content";
    case 206:
      return "Partial Content";
    case 300:
      return "Multiple Choices";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 303:
      return "See Other";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 402:
      return "Payment Required";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 406:
      return "Not Acceptable";
    case 407:
      return "Proxy Authentication Required";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 410:
      return "Gone";
    case 411:
      return "Length Required";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 416:
      return "Range Not Satisfiable";
    case 417:
      return "Expectation Failed";
    case 421:
      return "Misdirected Request";
    case 422:
      return "Unprocessable Content";
    case 423:
      return "Locked";
    case 424:
      return "Failed Dependency";
    case 425:
      return "Too Early";
    case 426:
      return "Upgrade Required";
    case 428:
      return "Precondition Required";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 451:
      return "Unavailable For Legal Reasons";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    case 507:
      return "Insufficient Storage";
    case 511:
      return "Network Authentication Required";
    default:
      break;
  }
  if (status < 300) return "Success";
  if (status < 400) return "Redirection";
  return status < 500 ? "Client Error" : "Server Error";
}

bool has_body(int status, bool head) noexcept { return !head && status != 204 && status != 304; }

std::string render_head(const HttpResponse& response, const AnswerForm& form, std::size_t extra) {
  std::size_t size = 160 + extra;
  for (const auto& [name, value] : response.headers) size += name.size() + value.size() + 4;
  std::string out;
  out.reserve(size);
  out += "HTTP/1.1 ";
  append_number(out, static_cast<std::size_t>(response.status));
  out += ' ';
  out += reason_phrase(response.status);
  out += "\r\n";
  out += date_line();
  append_headers(out, response.headers);
  if (form.body == BodyForm::chunked) {
    out += "Transfer-Encoding: chunked\r\n";
  } else if (form.body == BodyForm::sized && response.status != 204 &&
             (response.status != 304 || !response.body.empty())) {
    out += "Content-Length: ";
    append_number(out, response.body.size());
    out += "\r\n";
  }
  if (response.status == 426 && response.header("Upgrade") != nullptr) {
    out += form.close ? "Connection: close, upgrade\r\n" : "Connection: upgrade\r\n";
  } else if (form.close) {
    out += "Connection: close\r\n";
  } else if (!form.http11) {
    out += "Connection: keep-alive\r\n";
  }
  out += "\r\n";
  return out;
}

std::string render_upgrade(const HttpHeaders& headers, std::string_view accept) {
  std::string out = "HTTP/1.1 101 Switching Protocols\r\n";
  out += date_line();
  append_headers(out, headers);
  out += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ";
  out += accept;
  out += "\r\n\r\n";
  return out;
}

HttpResponse server_error(int status, std::string_view code, std::string_view message,
                          std::string_view request_id) {
  HttpResponse response;
  response.status = status;
  response.headers = {{"Content-Type", "application/json"},
                      {"X-Content-Type-Options", "nosniff"},
                      {"X-Request-Id", std::string(request_id)},
                      {"Cache-Control", "no-store"}};
  if (status == 503) response.headers.emplace_back("Retry-After", "1");
  // All parts are literals of ours or checked ids: nothing needs escaping.
  response.body.append(R"({"error":")").append(message).append(R"(","code":")").append(code);
  response.body.append(R"(","request_id":")").append(request_id).append("\"}");
  return response;
}

std::string request_id_for(std::string_view offered) {
  const auto fit = [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  bool good = !offered.empty() && offered.size() <= 128;
  for (const char c : offered) good = good && fit(c);
  if (good) return std::string(offered);
  static const std::shared_ptr<Random> random = make_system_random();
  return make_uuid(*random);
}

}  // namespace mcpgw::detail::server
