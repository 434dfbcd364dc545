#include "secrets/password.hpp"

#include <crypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kSaltBytes = 16;
constexpr std::size_t kHashBytes = 32;
constexpr std::uint64_t kMaxMemory = 256 * 1024 * 1024;
constexpr std::string_view kScrypt = "$scrypt$";

/// scrypt's cost: N = 2^log_n.
struct Cost {
  unsigned log_n = 15;
  unsigned r = 8;
  unsigned p = 1;
  bool operator==(const Cost&) const = default;
};
constexpr Cost kCost;  // of what we write

struct StoredScrypt {
  Cost cost;
  std::string salt;
  std::string hash;
};

std::string format(const Cost& cost) {
  return "ln=" + std::to_string(cost.log_n) + ",r=" + std::to_string(cost.r) + ",p=" + std::to_string(cost.p);
}

std::string base64_unpadded(std::string_view data) {
  std::string out = base64(data);
  while (!out.empty() && out.back() == '=') out.pop_back();
  return out;
}

std::optional<std::string> from_base64_unpadded(std::string_view text) {
  if (text.find('=') != std::string_view::npos) return std::nullopt;
  std::string padded(text);
  while (padded.size() % 4 != 0) padded += '=';
  return from_base64(padded);
}

/// Empty when the crypto library refuses.
std::string scrypt(std::string_view password, std::string_view salt, const Cost& cost, std::size_t size) {
  std::string out(size, '\0');
  // OpenSSL's own bound is 32 MiB, a little less than our cost needs.
  if (EVP_PBE_scrypt(password.data(), password.size(), reinterpret_cast<const unsigned char*>(salt.data()),
                     salt.size(), std::uint64_t(1) << cost.log_n, cost.r, cost.p, kMaxMemory,
                     reinterpret_cast<unsigned char*>(out.data()), out.size()) != 1)
    return {};
  return out;
}

/// The work of a real verification, for nothing.
void waste_time(std::string_view password) { (void)scrypt(password, "0123456789abcdef", kCost, kHashBytes); }

std::optional<unsigned> number_after(std::string_view text, std::string_view name) {
  if (!text.starts_with(name)) return std::nullopt;
  unsigned out = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + name.size(), end, out);
  if (error != std::errc() || stop != end) return std::nullopt;
  return out;
}

std::optional<Cost> parse_cost(std::string_view text) {
  const auto parts = split(text, ',');
  if (parts.size() != 3) return std::nullopt;
  const auto log_n = number_after(parts[0], "ln="), r = number_after(parts[1], "r="),
             p = number_after(parts[2], "p=");
  if (!log_n || !r || !p) return std::nullopt;
  if (*log_n < 1 || *log_n > 18 || *r < 1 || *r > 16 || *p < 1 || *p > 4) return std::nullopt;
  const Cost cost{*log_n, *r, *p};
  // Half of what OpenSSL may take, so that its bookkeeping fits too; RFC 7914's bound of N; one spelling
  // only.
  if (*log_n >= 16 * *r || (std::uint64_t(128) * cost.r << cost.log_n) > kMaxMemory / 2 ||
      format(cost) != text)
    return std::nullopt;
  return cost;
}

std::optional<StoredScrypt> parse_scrypt(std::string_view text) {
  if (!text.starts_with(kScrypt)) return std::nullopt;
  const auto parts = split(text.substr(kScrypt.size()), '$');
  if (parts.size() != 3) return std::nullopt;
  const auto cost = parse_cost(parts[0]);
  const auto salt = from_base64_unpadded(parts[1]), hash = from_base64_unpadded(parts[2]);
  if (!cost || !salt || !hash) return std::nullopt;
  if (salt->empty() || salt->size() > 64 || hash->size() < 16 || hash->size() > 64) return std::nullopt;
  return StoredScrypt{*cost, *salt, *hash};
}

bool is_bcrypt(std::string_view hash) {
  if (hash.size() != 60) return false;
  if (!hash.starts_with("$2a$") && !hash.starts_with("$2b$") && !hash.starts_with("$2y$")) return false;
  const std::string_view cost = hash.substr(4, 2);
  // 2^15 rounds take about two seconds; each step more takes twice as long.
  if (cost < "04" || cost > "15" || cost[1] < '0' || cost[1] > '9' || hash[6] != '$') return false;
  return std::all_of(hash.begin() + 7, hash.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '/';
  });
}

bool verify_bcrypt(std::string_view password, std::string_view hash) {
  // The three names mean one algorithm. libcrypt alone adds a counter-measure for "$2a$" (old hashes of its
  // own with a bug), which would refuse some right passwords.
  std::string setting(hash);
  setting[2] = 'b';
  // bcrypt reads 72 bytes and stops at a NUL: what it would not look at must not be accepted.
  const bool readable = password.size() <= 72 && password.find('\0') == std::string_view::npos;
  std::string phrase(password.substr(0, 72));
  const auto data = std::make_unique<crypt_data>();  // zeroed
  const char* const made = crypt_r(phrase.c_str(), setting.c_str(), data.get());
  const bool equal = made != nullptr && equal_constant_time(made, setting);
  OPENSSL_cleanse(phrase.data(), phrase.size());
  OPENSSL_cleanse(data.get(), sizeof *data);
  return readable && equal;
}

}  // namespace

std::string hash_password(std::string_view password, Random& random) {
  std::string salt(kSaltBytes, '\0');
  random.fill(salt.data(), salt.size());
  const std::string hash = scrypt(password, salt, kCost, kHashBytes);
  if (hash.empty()) return {};
  return std::string(kScrypt) + format(kCost) + "$" + base64_unpadded(salt) + "$" + base64_unpadded(hash);
}

bool verify_password(std::string_view password, std::string_view hash) {
  if (is_bcrypt(hash)) return verify_bcrypt(password, hash);
  const auto stored = parse_scrypt(hash);
  if (!stored) {
    waste_time(password);
    return false;
  }
  const std::string made = scrypt(password, stored->salt, stored->cost, stored->hash.size());
  return !made.empty() && equal_constant_time(made, stored->hash);
}

bool is_password_hash(std::string_view hash) { return is_bcrypt(hash) || parse_scrypt(hash).has_value(); }

bool needs_rehash(std::string_view hash) {
  const auto stored = parse_scrypt(hash);
  return !stored || stored->cost != kCost || stored->salt.size() < kSaltBytes ||
         stored->hash.size() < kHashBytes;
}

}  // namespace mcpgw::detail
