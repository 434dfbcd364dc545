// Which addresses may be connected to. Judged on the binary address, so that no spelling gets around it.
#include "runtime/address_check.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <array>
#include <cstring>

#include "runtime/http_client.hpp"

namespace mcpgw::detail {
namespace {

enum class Reach { open, local, metadata };

struct V4Range {
  std::uint32_t network;
  int bits;
  Reach reach;
};

constexpr std::uint32_t v4(unsigned a, unsigned b, unsigned c, unsigned d) {
  return a << 24 | b << 16 | c << 8 | d;
}

// The first match counts. Metadata services stand before the ranges they lie in.
constexpr V4Range kV4[] = {
    {v4(169, 254, 169, 254), 32, Reach::metadata},
    {v4(169, 254, 170, 2), 32, Reach::metadata},   // container credentials
    {v4(169, 254, 170, 23), 32, Reach::metadata},  // pod identity
    {v4(100, 100, 100, 200), 32, Reach::metadata},
    {v4(192, 0, 0, 192), 32, Reach::metadata},
    {v4(168, 63, 129, 16), 32, Reach::metadata},  // a public address that only answers inside a cloud
    {v4(0, 0, 0, 0), 8, Reach::local},
    {v4(10, 0, 0, 0), 8, Reach::local},
    {v4(100, 64, 0, 0), 10, Reach::local},
    {v4(127, 0, 0, 0), 8, Reach::local},
    {v4(169, 254, 0, 0), 16, Reach::local},
    {v4(172, 16, 0, 0), 12, Reach::local},
    {v4(192, 0, 0, 0), 24, Reach::local},
    {v4(192, 168, 0, 0), 16, Reach::local},
    {v4(198, 18, 0, 0), 15, Reach::local},
    {v4(224, 0, 0, 0), 4, Reach::local},  // multicast
    {v4(240, 0, 0, 0), 4, Reach::local},  // reserved, and broadcast
};

Reach judge_v4(const unsigned char* bytes) {
  const std::uint32_t address = v4(bytes[0], bytes[1], bytes[2], bytes[3]);
  for (const V4Range& range : kV4) {
    const std::uint32_t mask = ~std::uint32_t{0} << (32 - range.bits);
    if ((address & mask) == range.network) return range.reach;
  }
  return Reach::open;
}

using V6 = std::array<unsigned char, 16>;

bool starts_with(const V6& address, std::initializer_list<unsigned char> prefix) {
  return std::equal(prefix.begin(), prefix.end(), address.begin());
}

Reach judge_v6(const V6& a) {
  static const V6 metadata[] = {
      {0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54},
      {0xfd, 0x00, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x23},
      {0xfd, 0x20, 0x00, 0xce, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54},
  };
  for (const V6& address : metadata)
    if (a == address) return Reach::metadata;
  if (starts_with(a, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff})) return judge_v4(&a[12]);  // IPv4-mapped
  if (starts_with(a, {0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0})) return judge_v4(&a[12]);  // IPv4-translated
  if (starts_with(a, {0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0})) return judge_v4(&a[12]);  // NAT64
  if (starts_with(a, {0x20, 0x02})) return judge_v4(&a[2]);                                    // 6to4
  // Unspecified, loopback and the obsolete IPv4-compatible form, whose own reach is nowhere else either.
  if (starts_with(a, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})) {
    const Reach reach = judge_v4(&a[12]);
    return reach == Reach::metadata ? reach : Reach::local;
  }
  if (starts_with(a, {0, 0x64, 0xff, 0x9b, 0, 1})) return Reach::local;  // NAT64 of the own network
  if (starts_with(a, {0x20, 0x01, 0, 0})) return Reach::local;           // Teredo: hides an IPv4 address
  if (starts_with(a, {0x01, 0, 0, 0, 0, 0, 0, 0})) return Reach::local;  // discard-only
  if ((a[0] & 0xfe) == 0xfc) return Reach::local;                        // unique local
  if (a[0] == 0xfe && (a[1] & 0x80) != 0) return Reach::local;           // link-local, site-local
  if (a[0] == 0xff) return Reach::local;                                 // multicast
  return Reach::open;
}

bool permitted(Reach reach, bool allow_private, bool allow_metadata) {
  switch (reach) {
    case Reach::open:
      return true;
    case Reach::local:
      return allow_private;
    case Reach::metadata:
      return allow_metadata;
  }
  return false;
}

}  // namespace

bool address_allowed(const sockaddr& address, bool allow_private, bool allow_metadata) {
  if (address.sa_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    unsigned char bytes[4];
    std::memcpy(bytes, &in.sin_addr, sizeof bytes);
    return permitted(judge_v4(bytes), allow_private, allow_metadata);
  }
  if (address.sa_family == AF_INET6) {
    const auto& in = reinterpret_cast<const sockaddr_in6&>(address);
    V6 bytes;
    std::memcpy(bytes.data(), &in.sin6_addr, bytes.size());
    return permitted(judge_v6(bytes), allow_private, allow_metadata);
  }
  return false;
}

bool address_allowed(std::string_view address, bool allow_private, bool allow_metadata) {
  const std::string text(address);
  sockaddr_in in4{};
  in4.sin_family = AF_INET;
  if (inet_pton(AF_INET, text.c_str(), &in4.sin_addr) == 1)
    return address_allowed(reinterpret_cast<const sockaddr&>(in4), allow_private, allow_metadata);
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  if (inet_pton(AF_INET6, text.c_str(), &in6.sin6_addr) == 1)
    return address_allowed(reinterpret_cast<const sockaddr&>(in6), allow_private, allow_metadata);
  return false;
}

}  // namespace mcpgw::detail
