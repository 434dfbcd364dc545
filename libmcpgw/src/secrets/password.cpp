#include "secrets/password.hpp"

#include <crypt.h>
#include <openssl/evp.h>

#include <charconv>
#include <cstring>
#include <memory>
#include <optional>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

constexpr int kLogN = 15;
constexpr int kR = 8;
constexpr int kP = 1;
constexpr std::size_t kSaltBytes = 16;
constexpr std::size_t kHashBytes = 32;
constexpr std::uint64_t kMaxMemory = 256 * 1024 * 1024;

struct Parsed {
  int log_n = kLogN;
  int r = kR;
  int p = kP;
  std::string salt;
  std::string hash;
};

std::string strip_padding(std::string text) {
  while (!text.empty() && text.back() == '=') text.pop_back();
  return text;
}

std::optional<std::string> unpadded(std::string_view text) {
  std::string padded(text);
  while (padded.size() % 4 != 0) padded += '=';
  return from_base64(padded);
}

std::string scrypt(std::string_view password, std::string_view salt, int log_n, int r, int p, std::size_t size) {
  std::string out(size, '\0');
  if (EVP_PBE_scrypt(password.data(), password.size(), reinterpret_cast<const unsigned char*>(salt.data()), salt.size(),
                     std::uint64_t(1) << log_n, static_cast<std::uint64_t>(r), static_cast<std::uint64_t>(p), kMaxMemory,
                     reinterpret_cast<unsigned char*>(out.data()), out.size()) != 1)
    return {};
  return out;
}

/// A decimal after "name=".
bool parameter(std::string_view& text, std::string_view name, int max, int& out) {
  if (!text.starts_with(name)) return false;
  text.remove_prefix(name.size());
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || out < 1 || out > max) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  if (text.starts_with(',')) text.remove_prefix(1);
  return true;
}

std::optional<Parsed> parse(std::string_view text) {
  constexpr std::string_view kName = "$scrypt$";
  if (!text.starts_with(kName)) return std::nullopt;
  const auto parts = split(text.substr(kName.size()), '$');
  if (parts.size() != 3) return std::nullopt;
  Parsed out;
  std::string_view parameters = parts[0];
  if (!parameter(parameters, "ln=", 18, out.log_n) || !parameter(parameters, "r=", 16, out.r) ||
      !parameter(parameters, "p=", 4, out.p) || !parameters.empty())
    return std::nullopt;
  const auto salt = unpadded(parts[1]), hash = unpadded(parts[2]);
  if (!salt || !hash || salt->empty() || hash->size() < 16 || hash->size() > 64) return std::nullopt;
  out.salt = *salt;
  out.hash = *hash;
  return out;
}

bool is_bcrypt(std::string_view hash) {
  return hash.size() == 60 && (hash.starts_with("$2a$") || hash.starts_with("$2b$") || hash.starts_with("$2y$"));
}

bool verify_bcrypt(std::string_view password, std::string_view hash) {
  // bcrypt reads 72 bytes and stops at a NUL: what it would not look at must not be accepted.
  if (password.size() > 72 || password.find('\0') != std::string_view::npos) return false;
  const auto data = std::make_unique<crypt_data>();
  std::memset(data.get(), 0, sizeof *data);
  const char* const made = crypt_r(std::string(password).c_str(), std::string(hash).c_str(), data.get());
  return made != nullptr && equal_constant_time(made, hash);
}

}  // namespace

std::string hash_password(std::string_view password, Random& random) {
  std::string salt(kSaltBytes, '\0');
  random.fill(salt.data(), salt.size());
  const std::string hash = scrypt(password, salt, kLogN, kR, kP, kHashBytes);
  return "$scrypt$ln=" + std::to_string(kLogN) + ",r=" + std::to_string(kR) + ",p=" + std::to_string(kP) + "$" +
         strip_padding(base64(salt)) + "$" + strip_padding(base64(hash));
}

bool verify_password(std::string_view password, std::string_view hash) {
  if (is_bcrypt(hash)) return verify_bcrypt(password, hash);
  if (const auto parsed = parse(hash)) {
    const std::string made = scrypt(password, parsed->salt, parsed->log_n, parsed->r, parsed->p, parsed->hash.size());
    return !made.empty() && equal_constant_time(made, parsed->hash);
  }
  // The same work for a hash that is none, so that an answer's time does not tell.
  (void)scrypt(password, "0123456789abcdef", kLogN, kR, kP, kHashBytes);
  return false;
}

bool needs_rehash(std::string_view hash) {
  const auto parsed = parse(hash);
  return !parsed || parsed->log_n != kLogN || parsed->r != kR || parsed->p != kP;
}

}  // namespace mcpgw::detail
