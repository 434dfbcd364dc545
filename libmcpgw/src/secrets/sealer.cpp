#include "secrets/sealer.hpp"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kNonceBytes = 12;
constexpr std::size_t kTagBytes = 16;
constexpr std::size_t kMaxBytes = 64 * 1024 * 1024;  // OpenSSL counts in int; values of ours have a few KiB
constexpr std::string_view kPrefix = "v1.";

struct CipherDeleter {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Cipher = std::unique_ptr<EVP_CIPHER_CTX, CipherDeleter>;

const unsigned char* bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}
unsigned char* bytes(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }

/// AES-GCM with valid arguments fails only when the process is out of memory or its crypto library is broken;
/// going on would store something else than was given.
void must(bool ok) {
  if (ok) return;
  std::fputs("mcpgw: the crypto library cannot encrypt\n", stderr);
  std::abort();
}

std::string key_id(std::string_view key) {
  return to_hex(sha256("mcpgw-seal-kid" + std::string(1, '\0') + std::string(key))).substr(0, 16);
}

Error unavailable() {
  return {ErrorCode::data_loss, "credential_unavailable", "A stored secret cannot be decrypted"};
}

class AesSealer final : public Sealer {
 public:
  AesSealer(const EncryptionKeys& keys, std::shared_ptr<Random> random)
      : current_(key_id(keys.current)), random_(std::move(random)) {
    keys_[current_] = keys.current;
    for (const std::string& key : keys.previous) keys_.emplace(key_id(key), key);
  }
  ~AesSealer() override {
    for (auto& [id, key] : keys_) OPENSSL_cleanse(key.data(), key.size());
  }

  std::string seal(std::string_view plain, std::string_view identity) const override {
    return seal_with(current_, plain, identity);
  }

  std::string seal_with(std::string_view with, std::string_view plain,
                        std::string_view identity) const override {
    const auto key = keys_.find(with);
    must(key != keys_.end());
    must(plain.size() <= kMaxBytes && identity.size() <= kMaxBytes);
    std::string out(kNonceBytes + plain.size() + kTagBytes, '\0');
    random_->fill(out.data(), kNonceBytes);
    const Cipher cipher(EVP_CIPHER_CTX_new());
    int length = 0;
    unsigned char* const body = bytes(out) + kNonceBytes;
    must(cipher &&
         EVP_EncryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, bytes(key->second), bytes(out)) == 1);
    must(EVP_EncryptUpdate(cipher.get(), nullptr, &length, bytes(identity),
                           static_cast<int>(identity.size())) == 1);
    must(EVP_EncryptUpdate(cipher.get(), body, &length, bytes(plain), static_cast<int>(plain.size())) == 1);
    must(EVP_EncryptFinal_ex(cipher.get(), body + length, &length) == 1);
    must(EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, kTagBytes, body + plain.size()) == 1);
    return std::string(kPrefix) + key->first + "." + base64url(out);
  }

  Result<std::string> open(std::string_view sealed, std::string_view identity) const override {
    const auto id = key_id_of(sealed);
    if (id.empty()) return unavailable();
    const auto key = keys_.find(id);
    const auto packed = from_base64url(sealed.substr(kPrefix.size() + id.size() + 1));
    if (key == keys_.end() || !packed || packed->size() < kNonceBytes + kTagBytes ||
        packed->size() > kMaxBytes + kNonceBytes + kTagBytes)
      return unavailable();
    const std::size_t size = packed->size() - kNonceBytes - kTagBytes;
    const std::string_view body = std::string_view(*packed).substr(kNonceBytes, size);
    std::string tag = packed->substr(kNonceBytes + size);
    std::string out(size, '\0');
    const Cipher cipher(EVP_CIPHER_CTX_new());
    int length = 0;
    const bool ok =
        cipher &&
        EVP_DecryptInit_ex(cipher.get(), EVP_aes_256_gcm(), nullptr, bytes(key->second), bytes(*packed)) ==
            1 &&
        EVP_DecryptUpdate(cipher.get(), nullptr, &length, bytes(identity),
                          static_cast<int>(identity.size())) == 1 &&
        EVP_DecryptUpdate(cipher.get(), bytes(out), &length, bytes(body), static_cast<int>(size)) == 1 &&
        EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, tag.data()) == 1 &&
        EVP_DecryptFinal_ex(cipher.get(), bytes(out) + length, &length) == 1;
    if (!ok) {
      OPENSSL_cleanse(out.data(), out.size());  // decrypted, but by whom it was written is unknown
      return unavailable();
    }
    return out;
  }

  bool is_current(std::string_view sealed) const override { return key_id_of(sealed) == current_; }

  bool knows(std::string_view sealed) const override { return keys_.find(key_id_of(sealed)) != keys_.end(); }

  std::string current_key_id() const override { return current_; }

  std::vector<std::string> key_ids() const override {
    std::vector<std::string> out;
    for (const auto& [id, key] : keys_) out.push_back(id);
    return out;
  }

 private:
  const std::string current_;
  std::map<std::string, std::string, std::less<>> keys_;
  const std::shared_ptr<Random> random_;
};

}  // namespace

std::string_view Sealer::key_id_of(std::string_view sealed) {
  if (!sealed.starts_with(kPrefix)) return {};
  sealed.remove_prefix(kPrefix.size());
  const auto dot = sealed.find('.');
  return dot == std::string_view::npos ? std::string_view() : sealed.substr(0, dot);
}

Result<std::shared_ptr<Sealer>> Sealer::create(const EncryptionKeys& keys, std::shared_ptr<Random> random) {
  const auto bad = [](const std::string& key) { return key.size() != kKeyBytes; };
  bool any_bad = bad(keys.current);
  for (const std::string& key : keys.previous) any_bad |= bad(key);
  if (any_bad)
    return Error(ErrorCode::invalid_argument, "invalid_request",
                 "An encryption key must be exactly 32 bytes long", "encryption.key");
  if (!random) random = make_system_random();
  return std::shared_ptr<Sealer>(std::make_shared<AesSealer>(keys, std::move(random)));
}

}  // namespace mcpgw::detail
