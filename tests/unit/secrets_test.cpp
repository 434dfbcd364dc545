#include <doctest/doctest.h>
#include <openssl/evp.h>

#include "base/text.hpp"
#include "secrets/jwt.hpp"
#include "secrets/password.hpp"
#include "secrets/sealer.hpp"

using namespace mcpgw;
using namespace mcpgw::detail;

namespace {
const std::string kKeyA = "0123456789abcdef0123456789abcdef";
const std::string kKeyB = "fedcba9876543210fedcba9876543210";
}  // namespace

TEST_CASE("R79: a sealed value opens with its key and identity only") {
  const auto random = make_system_random();
  const auto sealer = *Sealer::create({kKeyA, {}}, random);
  for (const std::string& plain :
       {std::string(), std::string("x"), std::string(20000, 'y'), std::string("a\0b", 3)}) {
    const std::string sealed = sealer->seal(plain, "token|t1|user|u1");
    CHECK(*sealer->open(sealed, "token|t1|user|u1") == plain);
    CHECK_FALSE(sealer->open(sealed, "token|t1|user|u2"));
    if (plain.size() > 100) CHECK(sealed.find(plain) == std::string::npos);
    CHECK(sealer->is_current(sealed));
  }
  CHECK(sealer->seal("same", "id") != sealer->seal("same", "id"));
  const std::string sealed = sealer->seal("secret", "id");
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    std::string changed = sealed;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    const auto opened = sealer->open(changed, "id");
    REQUIRE_FALSE(opened);
    CHECK(opened.error().reason == "credential_unavailable");
  }
  for (const char* bad : {"", "v1", "v1.", "v1..", "v2.x.y", "v1.0123456789abcdef.AAAA"})
    CHECK_FALSE(sealer->open(bad, "id"));

  const auto rotated = *Sealer::create({kKeyB, {kKeyA}}, random);
  CHECK(*rotated->open(sealed, "id") == "secret");
  CHECK_FALSE(rotated->is_current(sealed));
  CHECK_FALSE((*Sealer::create({kKeyB, {}}, random))->open(sealed, "id"));
  CHECK_FALSE(Sealer::create({"short", {}}, random));
  CHECK_FALSE(Sealer::create({kKeyA, {"short"}}, random));
}

TEST_CASE("the scrypt underneath is RFC 7914's") {
  unsigned char out[64];
  REQUIRE(EVP_PBE_scrypt("pleaseletmein", 13, reinterpret_cast<const unsigned char*>("SodiumChloride"), 14,
                         16384, 8, 1, 64 * 1024 * 1024, out, sizeof out) == 1);
  CHECK(to_hex(std::string_view(reinterpret_cast<char*>(out), 64)) ==
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887");
  // The same vector in the form that is stored.
  const std::string stored =
      "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$"
      "cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8Pz2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw";
  CHECK(verify_password("pleaseletmein", stored));
  CHECK_FALSE(verify_password("pleaseletmeIn", stored));
  CHECK(needs_rehash(stored));
  // N 1024, r 8, p 16 of "password" and "NaCl" has more lanes than we take from a store.
  REQUIRE(EVP_PBE_scrypt("password", 8, reinterpret_cast<const unsigned char*>("NaCl"), 4, 1024, 8, 16,
                         64 * 1024 * 1024, out, sizeof out) == 1);
  CHECK(to_hex(std::string_view(reinterpret_cast<char*>(out), 64)) ==
        "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
        "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640");
}

TEST_CASE("passwords: any length, not cut, salted") {
  const auto random = make_system_random();
  const std::string longest(1024, 'p');
  const std::string hash = hash_password(longest, *random);
  CHECK(is_password_hash(hash));
  CHECK(verify_password(longest, hash));
  CHECK_FALSE(verify_password(longest.substr(1), hash));
  CHECK_FALSE(verify_password(longest + "p", hash));
  CHECK_FALSE(verify_password("", hash));
  CHECK(hash != hash_password(longest, *random));
  CHECK_FALSE(needs_rehash(hash));
  const std::string with_nul("before\0after", 12);
  const std::string nul_hash = hash_password(with_nul, *random);
  CHECK(verify_password(with_nul, nul_hash));
  CHECK_FALSE(verify_password("before", nul_hash));
}

TEST_CASE("stored hashes: one spelling, bounded cost, anything else is no hash") {
  const std::string salt_and_hash = "$U29kaXVtQ2hsb3JpZGU$AAAAAAAAAAAAAAAAAAAAAA";
  const auto scrypt = [&](const std::string& cost) { return "$scrypt$" + cost + salt_and_hash; };
  CHECK(is_password_hash(scrypt("ln=1,r=1,p=1")));
  CHECK(is_password_hash(scrypt("ln=17,r=8,p=4")));
  for (const std::string& bad : {std::string(),
                                 std::string("x"),
                                 std::string("$scrypt$"),
                                 scrypt("ln=0,r=8,p=1"),
                                 scrypt("ln=18,r=8,p=1"),
                                 scrypt("ln=17,r=16,p=1"),
                                 scrypt("ln=16,r=1,p=1"),
                                 scrypt("ln=99,r=8,p=1"),
                                 scrypt("ln=15,r=8,p=5"),
                                 scrypt("ln=15,r=0,p=1"),
                                 scrypt("ln=015,r=8,p=1"),
                                 scrypt("ln=+15,r=8,p=1"),
                                 scrypt("ln=-15,r=8,p=1"),
                                 scrypt("ln=15,r=8,p=1,"),
                                 scrypt("ln=15,r=8"),
                                 scrypt("r=8,ln=15,p=1"),
                                 scrypt("ln=15,r=8,p=1") + "==",
                                 scrypt("ln=15,r=8,p=1") + "$",
                                 scrypt("ln=99999999999999999999,r=8,p=1"),
                                 std::string("$scrypt$ln=15,r=8,p=1$$AAAAAAAAAAAAAAAAAAAAAA"),
                                 std::string("$scrypt$ln=15,r=8,p=1$U29kaXVt$AAAA"),
                                 std::string("$2b$10$short"),
                                 "$2x$05$" + std::string(53, 'C'),
                                 "$2b$16$" + std::string(53, 'C'),
                                 "$2b$03$" + std::string(53, 'C'),
                                 "$2b$0x$" + std::string(53, 'C'),
                                 "$2b$1/$" + std::string(53, 'C'),
                                 "$2b$05$" + std::string(53, '$'),
                                 std::string("$1$salt$hash")}) {
    CHECK_MESSAGE(!is_password_hash(bad), bad);
    CHECK_MESSAGE(needs_rehash(bad), bad);
  }
  CHECK_FALSE(verify_password("x", ""));
  CHECK_FALSE(verify_password("", ""));
}

TEST_CASE("imported bcrypt hashes verify and are to be replaced") {
  const std::string rest = "$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
  for (const char* name : {"$2a", "$2b", "$2y"}) {
    const std::string hash = name + rest;
    CHECK(is_password_hash(hash));
    CHECK(verify_password("U*U", hash));
    CHECK_FALSE(verify_password("U*V", hash));
    CHECK_FALSE(verify_password("", hash));
    CHECK(needs_rehash(hash));
  }
  // bcrypt itself would not look at what comes after 72 bytes or a NUL.
  const std::string full = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
  const std::string of_full = "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui";
  CHECK(verify_password(full, of_full));
  CHECK_FALSE(verify_password(full + "chars after 72 are ignored", of_full));
  CHECK_FALSE(verify_password(full.substr(0, 71), of_full));
  CHECK_FALSE(verify_password(std::string("U*U\0", 4), "$2a" + rest));
  // Bytes above 127. libcrypt by itself computes another hash for the second one under "$2a$".
  for (const char* name : {"$2a", "$2b", "$2y"}) {
    CHECK(verify_password("\xa3",
                          name + std::string("$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq")));
    CHECK(verify_password("\xff\xff\xa3",
                          name + std::string("$05$/OK.fbVrR/bpIqNJ5ianF.CE5elHaaO4EbggVDjb8P19RukzXSM3e")));
  }
}

TEST_CASE("HS256 is RFC 7515's") {
  const auto key = from_base64url(
      "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
  REQUIRE(key);
  CHECK(base64url(hmac_sha256(*key,
                              "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
                              "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc1"
                              "9yb290Ijp0cnVlfQ")) == "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
}

namespace {

const std::string kSecret = "one secret of at least thirty-two bytes";
const std::string kOther = "another secret, also of 32 bytes or more";
const JwtClaims kClaims{"mcpgw", "mcpgw", "user-1", "jti-1", 1000, 1000, 2000};

std::string made(const JwtClaims& claims = kClaims, const std::string& secret = kSecret) {
  return *JwtKeys(secret, {}).sign(claims);
}

/// "ok", "foreign", or the reason of the refusal.
std::string verdict(const std::string& token, std::int64_t now = 1500, const char* issuer = "mcpgw",
                    const char* audience = "mcpgw") {
  const auto result = JwtKeys(kSecret, {}).verify(token, {issuer, audience, now, 60});
  return !result ? "foreign" : *result ? "ok" : result->error().reason;
}

/// Rightly signed, whatever it says.
std::string forged(const std::string& header, const std::string& payload) {
  const std::string text = base64url(header) + "." + base64url(payload);
  return text + "." + base64url(hmac_sha256(kSecret, text));
}

std::string header_with(const std::string& members) {
  return "{" + members + R"("kid":")" + jwt_key_id(kSecret) + "\"}";
}

std::string payload_with(const std::string& more = {}) {
  return R"({"iss":"mcpgw","aud":"mcpgw","sub":"u","jti":"j")" + more + "}";
}

}  // namespace

TEST_CASE("tokens: what we sign, we accept, in its time and for its audience") {
  const std::string token = made();
  const auto claims = JwtKeys(kSecret, {}).verify(token, {"mcpgw", "mcpgw", 1500, 60});
  REQUIRE(claims);
  REQUIRE(*claims);
  CHECK((**claims)->subject == "user-1");
  CHECK((**claims)->token_id == "jti-1");
  CHECK((**claims)->issued_at == 1000);
  CHECK((**claims)->not_before == 1000);
  CHECK((**claims)->expires_at == 2000);
  CHECK(verdict(token, 2059) == "ok");
  CHECK(verdict(token, 2060) == "token_expired");
  CHECK(verdict(token, 940) == "ok");
  CHECK(verdict(token, 939) == "invalid_token");
  CHECK(verdict(token, 1500, "else") == "invalid_token");
  CHECK(verdict(token, 1500, "mcpgw", "else") == "invalid_token");
  JwtClaims unlimited = kClaims;
  unlimited.expires_at.reset();
  CHECK(verdict(made(unlimited), std::int64_t(1) << 40) == "ok");
  // An equivalent header is as good as our own.
  CHECK(verdict(forged(header_with(R"("alg":"HS256",)"), *from_base64url(split(token, '.')[1]))) == "ok");
}

TEST_CASE("tokens: one that was verified before is judged anew by time, issuer, audience and every byte") {
  const JwtKeys keys(kSecret, {});
  const auto judged = [&](const std::string& token, std::int64_t now, std::string_view issuer = "mcpgw",
                          std::string_view audience = "mcpgw") {
    const auto result = keys.verify(token, {issuer, audience, now, 60});
    return !result ? "foreign" : *result ? (**result)->token_id : result->error().reason;
  };
  const std::string token = made();
  for (int round = 0; round < 3; ++round) {
    CAPTURE(round);
    CHECK(judged(token, 1500) == "jti-1");
    CHECK(judged(token, 2060) == "token_expired");
    CHECK(judged(token, 939) == "invalid_token");
    CHECK(judged(token, 1500, "else") == "invalid_token");
    CHECK(judged(token, 1500, "mcpgw", "else") == "invalid_token");
    for (std::size_t i = 0; i < token.size(); ++i) {
      std::string other = token;
      other[i] = other[i] == 'A' ? 'B' : 'A';
      CHECK(judged(other, 1500) != "jti-1");
    }
  }
  // More tokens than are remembered.
  for (int i = 0; i < 10000; ++i) {
    JwtClaims one = kClaims;
    one.token_id = "t" + std::to_string(i);
    CHECK(judged(*keys.sign(one), 1500) == one.token_id);
  }
  CHECK(judged(token, 1500) == "jti-1");
}

TEST_CASE("tokens: keys rotate, and are chosen by their id") {
  const JwtExpectation expectation{"mcpgw", "mcpgw", 1500, 60};
  const JwtKeys rotated(kOther, {kSecret});
  CHECK(rotated.verify(made(), expectation)->has_value());
  const std::string signed_now = *rotated.sign(kClaims);
  CHECK(JwtKeys(kOther, {}).verify(signed_now, expectation)->has_value());
  CHECK(verdict(signed_now) == "foreign");
  // The id of one key, the signature of the other.
  const auto mine = split(made(), '.');
  const std::string text = mine[0] + "." + mine[1];
  CHECK(rotated.verify(text + "." + base64url(hmac_sha256(kOther, text)), expectation)->error().reason ==
        "invalid_token");
  CHECK(jwt_key_id(kSecret).size() == 16);
  CHECK(jwt_key_id(kSecret) != jwt_key_id(kOther));
}

TEST_CASE("tokens: a header that is not exactly ours is refused, however well it is signed") {
  const std::string payload = payload_with(R"(,"iat":1000,"nbf":1000)");
  REQUIRE(verdict(forged(header_with(R"("alg":"HS256","typ":"JWT",)"), payload)) == "ok");
  for (const char* members :
       {"", R"("alg":"none",)", R"("alg":"None",)", R"("alg":"RS256",)", R"("alg":"HS512",)",
        R"("alg":"hs256",)", R"("alg":["HS256"],)", R"("alg":null,)", R"("alg":"HS256","crit":["x"],)",
        R"("alg":"HS256","crit":[],)", R"("alg":"HS256","typ":"at+jwt",)", R"("alg":"HS256","typ":"jwt",)",
        R"("alg":"HS256","typ":null,)"})
    CHECK_MESSAGE(verdict(forged(header_with(members), payload)) == "invalid_token", members);
  for (const std::string& header :
       {std::string(R"({"alg":"HS256"})"), std::string(R"({"alg":"HS256","kid":"0000000000000000"})"),
        std::string(R"({"alg":"HS256","kid":""})"), std::string(R"({"alg":"HS256","kid":[]})"),
        header_with(R"("alg":"HS256","alg":"none",)"), header_with(R"("alg":"HS256","kid":"x",)"),
        header_with(R"("alg":"HS256",)") + " x", std::string("[]"), std::string("x"), std::string()})
    CHECK_MESSAGE(verdict(forged(header, payload)) == "foreign", header);
}

TEST_CASE("tokens: claims of another shape are refused, however well they are signed") {
  const std::string header = *from_base64url(split(made(), '.')[0]);
  const std::string times = R"(,"iat":1000,"nbf":1000)";
  REQUIRE(verdict(forged(header, payload_with(times))) == "ok");
  for (const std::string& payload :
       {std::string("{}"),
        std::string("[]"),
        std::string(),
        payload_with(),
        payload_with(R"(,"iat":1000)"),
        payload_with(R"(,"nbf":1000)"),
        payload_with(times + R"(,"exp":"soon")"),
        payload_with(times + R"(,"exp":null)"),
        payload_with(times + R"(,"exp":3000.5)"),
        payload_with(times + R"(,"exp":1e9)"),
        payload_with(times + R"(,"exp":18446744073709551615)"),
        payload_with(times + R"(,"exp":99999999999999999999999)"),
        payload_with(times + R"(,"sub":"admin")"),
        payload_with(R"(,"iat":1000,"nbf":18446744073709551615)"),
        payload_with(R"(,"iat":1000,"nbf":true)"),
        std::string(R"({"iss":"mcpgw","aud":["mcpgw"],"sub":"u","jti":"j")" + times + "}"),
        std::string(R"({"iss":["mcpgw"],"aud":"mcpgw","sub":"u","jti":"j")" + times + "}"),
        std::string(R"({"aud":"mcpgw","sub":"u","jti":"j")" + times + "}"),
        std::string(R"({"iss":"mcpgw","sub":"u","jti":"j")" + times + "}"),
        std::string(R"({"iss":"mcpgw","aud":"mcpgw","jti":"j")" + times + "}"),
        std::string(R"({"iss":"mcpgw","aud":"mcpgw","sub":"","jti":"j")" + times + "}"),
        std::string(R"({"iss":"mcpgw","aud":"mcpgw","sub":"u")" + times + "}")})
    CHECK_MESSAGE(verdict(forged(header, payload)) == "invalid_token", payload);
  CHECK(verdict(forged(header, payload_with(times + R"(,"exp":-9223372036854775808)"))) == "token_expired");
}

TEST_CASE("tokens: no byte can be changed, added or left out") {
  const std::string token = made();
  const auto parts = split(token, '.');
  REQUIRE(parts.size() == 3);
  for (std::size_t i = 0; i < token.size(); ++i) {
    for (const char other : {'A', 'B', '.', '='}) {
      std::string changed = token;
      if (changed[i] == other) continue;
      changed[i] = other;
      CHECK(verdict(changed) != "ok");
    }
    std::string shorter = token;
    shorter.erase(i, 1);
    CHECK(verdict(shorter) != "ok");
  }
  // The last character of 32 bytes holds two bits that mean nothing: one spelling only.
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const auto last = kAlphabet.find(token.back());
  for (std::size_t bits = 1; bits < 4; ++bits)
    CHECK(verdict(token.substr(0, token.size() - 1) + kAlphabet[last ^ bits]) == "invalid_token");
  const std::string front = parts[0] + "." + parts[1] + ".";
  for (const std::string& bad :
       {front, front + parts[2] + "=", front + parts[2].substr(0, 20), front + parts[2] + parts[2],
        front + " " + parts[2], token + "\n", token + ".", token + ".x", "." + token,
        parts[0] + "." + parts[1], parts[0] + "=." + parts[1] + "." + parts[2],
        front + base64(std::string(32, '\0')), front + base64url(std::string(32, '\0')), std::string(),
        std::string(".."), std::string(5000, 'a'), std::string(2000, '.')})
    CHECK_MESSAGE(verdict(bad) != "ok", bad);
  CHECK(verdict(made(kClaims, kOther)) == "foreign");
  JwtClaims admin = kClaims;
  admin.subject = "admin";
  CHECK(verdict(parts[0] + "." + split(made(admin), '.')[1] + "." + parts[2]) == "invalid_token");
  JwtClaims padded = kClaims;
  padded.subject = std::string(4000, 'x');
  CHECK(verdict(made(padded)) == "foreign");
}
