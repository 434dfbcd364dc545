// Finds the first byte of a kind, eight bytes at a time: most of what arrives is text in which nothing stands
// out, and a byte at a time is what validating it cost.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace mcpgw::detail::scan {

using Word = std::uint64_t;

constexpr Word each_byte(unsigned char value) noexcept { return 0x0101010101010101u * value; }

// Each sets the high bit of the bytes it is about. A carry may set it in later bytes too, never in earlier
// ones: the lowest bit set is right.
constexpr Word below(Word word, unsigned char limit) noexcept {  // limit <= 0x80
  return (word - each_byte(limit)) & ~word & each_byte(0x80);
}
constexpr Word equal(Word word, unsigned char value) noexcept { return below(word ^ each_byte(value), 1); }
constexpr Word not_ascii(Word word) noexcept { return word & each_byte(0x80); }

/// The first byte in [p, end) for which `of_byte` holds, else `end`. `of_word` says the same of eight bytes
/// by their high bits.
template <class OfWord, class OfByte>
const char* first(const char* p, const char* end, OfWord of_word, OfByte of_byte) noexcept {
  if constexpr (std::endian::native == std::endian::little) {
    if (end - p >= 8) {
      for (; end - p > 8; p += 8) {
        Word word;
        std::memcpy(&word, p, sizeof word);
        if (const Word found = of_word(word); found != 0) return p + std::countr_zero(found) / 8;
      }
      // The last eight once more or for the first time: what was looked at before has nothing in it.
      Word word;
      std::memcpy(&word, end - 8, sizeof word);
      const Word found = of_word(word);
      return found != 0 ? end - 8 + std::countr_zero(found) / 8 : end;
    }
  }
  while (p != end && !of_byte(static_cast<unsigned char>(*p))) ++p;
  return p;
}

/// Past what may stand in a JSON string as it is: to a quote, a backslash, a control character, or a byte
/// that is not ASCII.
inline const char* past_plain_json(const char* p, const char* end) noexcept {
  return first(
      p, end, [](Word w) { return equal(w, '"') | equal(w, '\\') | below(w, 0x20) | not_ascii(w); },
      [](unsigned char c) { return c == '"' || c == '\\' || c < 0x20 || c >= 0x80; });
}

/// To what ends a string of valid JSON, or begins an escape in it.
inline const char* to_quote_or_escape(const char* p, const char* end) noexcept {
  return first(
      p, end, [](Word w) { return equal(w, '"') | equal(w, '\\'); },
      [](unsigned char c) { return c == '"' || c == '\\'; });
}

inline const char* past_ascii(const char* p, const char* end) noexcept {
  return first(
      p, end, [](Word w) { return not_ascii(w); }, [](unsigned char c) { return c >= 0x80; });
}

/// To a C0 control or DEL: what a header's value must not hold (a tab aside).
inline const char* to_control(const char* p, const char* end) noexcept {
  return first(
      p, end, [](Word w) { return below(w, 0x20) | equal(w, 0x7f); },
      [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

/// Past what may stand in one word of a credential (RFC 6750's b64token, and more): to a space, a control, a
/// byte that is not ASCII, or what separates parameters.
inline const char* past_token(const char* p, const char* end) noexcept {
  return first(
      p, end,
      [](Word w) {
        return below(w, 0x21) | equal(w, 0x7f) | not_ascii(w) | equal(w, ',') | equal(w, '"') | equal(w, ';');
      },
      [](unsigned char c) { return c <= ' ' || c >= 0x7f || c == ',' || c == '"' || c == ';'; });
}

}  // namespace mcpgw::detail::scan
