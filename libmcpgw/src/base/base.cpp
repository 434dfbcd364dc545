// Out-of-line parts of the smallest public headers: result, clock, random, http, version.
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "base/id_random.hpp"
#include "base/moment.hpp"
#include "base/text.hpp"
#include "mcpgw/clock.hpp"
#include "mcpgw/http.hpp"
#include "mcpgw/random.hpp"
#include "mcpgw/result.hpp"
#include "mcpgw/version.hpp"

#ifndef MCPGW_COMMIT
#define MCPGW_COMMIT "unknown"
#endif

namespace mcpgw {

const char* to_string(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "invalid_argument";
    case ErrorCode::unauthenticated:
      return "unauthenticated";
    case ErrorCode::permission_denied:
      return "permission_denied";
    case ErrorCode::not_found:
      return "not_found";
    case ErrorCode::conflict:
      return "conflict";
    case ErrorCode::precondition_failed:
      return "precondition_failed";
    case ErrorCode::unavailable:
      return "unavailable";
    case ErrorCode::deadline_exceeded:
      return "deadline_exceeded";
    case ErrorCode::cancelled:
      return "cancelled";
    case ErrorCode::resource_exhausted:
      return "resource_exhausted";
    case ErrorCode::unsupported:
      return "unsupported";
    case ErrorCode::data_loss:
      return "data_loss";
    case ErrorCode::internal:
      return "internal";
  }
  return "internal";
}

namespace {

class SystemClock final : public Clock {
 public:
  Time now() const override { return std::chrono::floor<std::chrono::microseconds>(detail::system_now()); }
  Duration monotonic() const override {
    return std::chrono::duration_cast<Duration>(detail::steady_now().time_since_epoch());
  }
};

class SystemRandom final : public Random {
 public:
  void fill(void* data, std::size_t size) override {
    if (RAND_bytes(static_cast<unsigned char*>(data), static_cast<int>(size)) != 1) {
      std::fputs("mcpgw: the system has no entropy\n", stderr);
      std::abort();
    }
  }
};

}  // namespace

std::shared_ptr<Clock> make_system_clock() { return std::make_shared<SystemClock>(); }
std::shared_ptr<Random> make_system_random() { return std::make_shared<SystemRandom>(); }

namespace {
/// RFC 9562, section 4: `bytes` with version and variant set.
void put_uuid(std::string& out, std::array<unsigned char, 16>& bytes, int version) {
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | version << 4);
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);
  constexpr char kDigits[] = "0123456789abcdef";
  out.resize(36);
  char* at = out.data();
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) *at++ = '-';
    *at++ = kDigits[bytes[i] >> 4];
    *at++ = kDigits[bytes[i] & 15];
  }
}
}  // namespace

std::string make_uuid(Random& random) {
  std::array<unsigned char, 16> bytes{};
  random.fill(bytes.data(), bytes.size());
  std::string out;
  put_uuid(out, bytes, 4);
  return out;
}

void detail::put_ordered_uuid(std::string& out, const std::array<unsigned char, 10>& random, Time time) {
  std::array<unsigned char, 16> bytes;
  const auto ms = std::chrono::floor<std::chrono::milliseconds>(time).time_since_epoch().count();
  for (int i = 0; i < 6; ++i)
    bytes[static_cast<std::size_t>(i)] =
        static_cast<unsigned char>(static_cast<std::uint64_t>(ms) >> (8 * (5 - i)));
  std::copy(random.begin(), random.end(), bytes.begin() + 6);
  put_uuid(out, bytes, 7);
}

const std::string* find_header(const HttpHeaders& headers, std::string_view name) noexcept {
  // Lengths differ mostly, so that few names are compared.
  for (const auto& [key, value] : headers)
    if (key.size() == name.size() && detail::iequals(key, name)) return &value;
  return nullptr;
}

void HttpResponse::set_header(std::string name, std::string value) {
  headers.erase(std::remove_if(headers.begin(), headers.end(),
                               [&](const auto& h) { return detail::iequals(h.first, name); }),
                headers.end());
  headers.emplace_back(std::move(name), std::move(value));
}

int websocket_refusal(const HttpRequest& request) {
  const auto lists = [&](std::string_view name, std::string_view wanted) {
    for (const auto& [key, value] : request.headers) {
      if (!detail::iequals(key, name)) continue;
      for (const std::string& element : detail::split(value, ','))
        if (detail::iequals(detail::trim(element), wanted)) return true;
    }
    return false;
  };
  if (request.method != "GET" || !lists("Upgrade", "websocket") || !lists("Connection", "upgrade"))
    return 426;
  const std::string* version = request.header("Sec-WebSocket-Version");
  if (version == nullptr || *version != "13") return 426;
  const auto keys = std::count_if(request.headers.begin(), request.headers.end(), [](const auto& header) {
    return detail::iequals(header.first, "Sec-WebSocket-Key");
  });
  if (keys != 1 || !request.body.empty()) return 400;
  const auto nonce = detail::from_base64(*request.header("Sec-WebSocket-Key"));
  return nonce && nonce->size() == 16 ? 0 : 400;
}

std::shared_ptr<WebSocket> Responder::accept_websocket(WebSocketOptions) { return nullptr; }

const char* version() noexcept { return MCPGW_VERSION; }
const char* commit() noexcept { return MCPGW_COMMIT; }

}  // namespace mcpgw
