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
  for (const std::string& plain : {std::string(), std::string("x"), std::string(20000, 'y'), std::string("a\0b", 3)}) {
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
  for (const char* bad : {"", "v1", "v1.", "v1..", "v2.x.y", "v1.0123456789abcdef.AAAA"}) CHECK_FALSE(sealer->open(bad, "id"));

  const auto rotated = *Sealer::create({kKeyB, {kKeyA}}, random);
  CHECK(*rotated->open(sealed, "id") == "secret");
  CHECK_FALSE(rotated->is_current(sealed));
  CHECK_FALSE((*Sealer::create({kKeyB, {}}, random))->open(sealed, "id"));
  CHECK_FALSE(Sealer::create({"short", {}}, random));
  CHECK_FALSE(Sealer::create({kKeyA, {"short"}}, random));
}

TEST_CASE("the scrypt underneath is RFC 7914's") {
  unsigned char out[64];
  REQUIRE(EVP_PBE_scrypt("pleaseletmein", 13, reinterpret_cast<const unsigned char*>("SodiumChloride"), 14, 16384, 8, 1,
                         64 * 1024 * 1024, out, sizeof out) == 1);
  CHECK(to_hex(std::string_view(reinterpret_cast<char*>(out), 64)) ==
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887");
  // The same vector in the form that is stored.
  const std::string stored = "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$"
                             "cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofLVQylVYT8Pz2LUlwUkKpr55h6F3A1lHkDfzwF7RVdYhw";
  CHECK(verify_password("pleaseletmein", stored));
  CHECK_FALSE(verify_password("pleaseletmeIn", stored));
  CHECK(needs_rehash(stored));
}

TEST_CASE("passwords: any length, not cut, salted") {
  const auto random = make_system_random();
  const std::string longest(1024, 'p');
  const std::string hash = hash_password(longest, *random);
  CHECK(verify_password(longest, hash));
  CHECK_FALSE(verify_password(longest.substr(1), hash));
  CHECK_FALSE(verify_password(longest + "p", hash));
  CHECK(hash != hash_password(longest, *random));
  CHECK_FALSE(needs_rehash(hash));
  for (const char* bad : {"", "x", "$scrypt$", "$scrypt$ln=99,r=8,p=1$AAAA$AAAA", "$2b$10$short"})
    CHECK_FALSE(verify_password("x", bad));
}

TEST_CASE("imported bcrypt hashes verify and are to be replaced") {
  const std::string hash = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
  CHECK(verify_password("U*U", hash));
  CHECK_FALSE(verify_password("U*V", hash));
  CHECK(needs_rehash(hash));
  CHECK_FALSE(verify_password(std::string(73, 'a'), hash));
}

TEST_CASE("HS256 is RFC 7515's") {
  const auto key = from_base64url("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow");
  REQUIRE(key);
  CHECK(base64url(hmac_sha256(*key, "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
                                    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ")) ==
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
}

TEST_CASE("tokens: what is accepted, and nothing else") {
  const std::string secret = "one secret of at least thirty-two bytes", other = "another secret, also of 32 bytes or more";
  const std::vector<std::string> secrets{secret};
  JwtClaims claims{"mcpgw", "mcpgw", "user-1", "jti-1", 1000, 1000, 2000};
  const std::string token = sign_jwt(claims, secret);
  const auto verify = [&](const std::string& text, std::int64_t now = 1500) {
    return verify_jwt(text, secrets, "mcpgw", "mcpgw", now, 60);
  };
  REQUIRE(verify(token));
  CHECK(verify(token)->subject == "user-1");
  CHECK(verify(token)->token_id == "jti-1");
  CHECK(recognises_jwt(token, secrets));
  CHECK_FALSE(recognises_jwt(token, {other}));
  CHECK(verify_jwt(token, {other, secret}, "mcpgw", "mcpgw", 1500, 60));

  CHECK(verify(token, 2059));
  CHECK(verify(token, 2060).error().reason == "token_expired");
  CHECK(verify(token, 940));
  CHECK(verify(token, 939).error().reason == "invalid_token");
  CHECK_FALSE(verify_jwt(token, secrets, "else", "mcpgw", 1500, 60));
  CHECK_FALSE(verify_jwt(token, secrets, "mcpgw", "else", 1500, 60));

  const auto parts = split(token, '.');
  const auto forged = [&](const std::string& header, const std::string& payload) {
    const std::string text = base64url(header) + "." + base64url(payload);
    return text + "." + base64url(hmac_sha256(secret, text));
  };
  const std::string payload = *from_base64url(parts[1]);
  const std::string kid = jwt_key_id(secret);
  REQUIRE(verify(forged(R"({"alg":"HS256","typ":"JWT","kid":")" + kid + "\"}", payload)));
  for (const std::string& header :
       {R"({"alg":"none","kid":")" + kid + "\"}", R"({"alg":"RS256","kid":")" + kid + "\"}",
        R"({"alg":"hs256","kid":")" + kid + "\"}", std::string(R"({"alg":"HS256"})"),
        std::string(R"({"alg":"HS256","kid":"0000000000000000"})"), R"({"alg":"HS256","crit":["x"],"kid":")" + kid + "\"}",
        R"({"alg":"HS256","alg":"none","kid":")" + kid + "\"}", R"({"alg":"HS256","typ":"at+jwt","kid":")" + kid + "\"}",
        std::string("[]"), std::string("x")})
    CHECK_MESSAGE(!verify(forged(header, payload)), header);
  const std::string good_header = *from_base64url(parts[0]);
  for (const std::string& claims_text :
       {std::string("{}"), std::string("[]"), std::string(R"({"iss":"mcpgw","aud":"mcpgw","sub":"u","jti":"j","iat":1,"nbf":1,"exp":"soon"})"),
        std::string(R"({"iss":"mcpgw","aud":["mcpgw"],"sub":"u","jti":"j","iat":1,"nbf":1})"),
        std::string(R"({"iss":"mcpgw","aud":"mcpgw","jti":"j","iat":1,"nbf":1})"),
        std::string(R"({"iss":"mcpgw","aud":"mcpgw","sub":"u","iat":1,"nbf":1})")})
    CHECK_MESSAGE(!verify(forged(good_header, claims_text)), claims_text);
  CHECK_FALSE(verify(parts[0] + "." + parts[1] + "."));
  CHECK_FALSE(verify(parts[0] + "." + parts[1] + "." + parts[2].substr(0, 20)));
  CHECK_FALSE(verify(parts[0] + "." + parts[1] + "." + parts[2] + "="));
  CHECK_FALSE(verify(token + ".x"));
  CHECK_FALSE(verify("." + token));
  CHECK_FALSE(verify(sign_jwt(claims, other)));
  JwtClaims admin = claims;
  admin.subject = "admin";
  CHECK_FALSE(verify(parts[0] + "." + split(sign_jwt(admin, other), '.')[1] + "." + parts[2]));
  CHECK_FALSE(verify(std::string(5000, 'a')));
}
