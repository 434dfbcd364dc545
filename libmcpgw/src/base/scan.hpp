// Finds the first byte of a kind, sixteen or eight bytes at a time: most of what arrives is text in which
// nothing stands out, and a byte at a time is what validating it cost.
#pragma once

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace mcpgw::detail::scan {

// What a kind is told by: below(), equal() and not_ascii() of the bytes at hand, joined with `|`. Each sets
// the high bit of the bytes it is about.

using Word = std::uint64_t;

constexpr Word each_byte(unsigned char value) noexcept { return 0x0101010101010101u * value; }

// A carry may set it in later bytes too, never in earlier ones: the first is right.
constexpr Word below(Word word, unsigned char limit) noexcept {  // 0 < limit <= 0x80
  return (word - each_byte(limit)) & ~word & each_byte(0x80);
}
constexpr Word equal(Word word, unsigned char value) noexcept { return below(word ^ each_byte(value), 1); }
constexpr Word not_ascii(Word word) noexcept { return word & each_byte(0x80); }
constexpr std::ptrdiff_t place(Word found) noexcept { return std::countr_zero(found) / 8; }

#ifdef __SSE2__
struct Block {
  __m128i bytes;
};

inline Block operator|(Block a, Block b) noexcept { return {_mm_or_si128(a.bytes, b.bytes)}; }
inline Block below(Block block, unsigned char limit) noexcept {
  const __m128i most = _mm_set1_epi8(static_cast<char>(limit - 1));
  return {_mm_cmpeq_epi8(_mm_min_epu8(block.bytes, most), block.bytes)};
}
inline Block equal(Block block, unsigned char value) noexcept {
  return {_mm_cmpeq_epi8(block.bytes, _mm_set1_epi8(static_cast<char>(value)))};
}
inline Block not_ascii(Block block) noexcept { return block; }
inline std::ptrdiff_t place(Block found) noexcept {
  return std::countr_zero(static_cast<unsigned>(_mm_movemask_epi8(found.bytes)) | 1u << sizeof(Block));
}
#endif

/// first() of at least as many bytes as `Bytes` holds.
template <class Bytes, class Kind>
const char* first_in(const char* p, const char* end, Kind kind) noexcept {
  constexpr std::ptrdiff_t kSize = sizeof(Bytes);
  const auto look = [kind](const char* from) {
    Bytes bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return place(kind(bytes));
  };
  for (; end - p > kSize; p += kSize)
    if (const std::ptrdiff_t at = look(p); at != kSize) return p + at;
  // The last ones once more or for the first time: what was looked at before has nothing in it.
  return end - kSize + look(end - kSize);
}

/// The first byte in [p, end) for which `of_byte` holds, else `end`. `kind` says the same of several bytes.
template <class Kind, class OfByte>
const char* first(const char* p, const char* end, Kind kind, OfByte of_byte) noexcept {
#ifdef __SSE2__
  if (end - p >= static_cast<std::ptrdiff_t>(sizeof(Block))) return first_in<Block>(p, end, kind);
#endif
  if constexpr (std::endian::native == std::endian::little)
    if (end - p >= static_cast<std::ptrdiff_t>(sizeof(Word))) return first_in<Word>(p, end, kind);
  while (p != end && !of_byte(static_cast<unsigned char>(*p))) ++p;
  return p;
}

/// Past what may stand in a JSON string as it is: to a quote, a backslash, a control character, or a byte
/// that is not ASCII.
inline const char* past_plain_json(const char* p, const char* end) noexcept {
  return first(
      p, end, [](auto w) { return equal(w, '"') | equal(w, '\\') | below(w, 0x20) | not_ascii(w); },
      [](unsigned char c) { return c == '"' || c == '\\' || c < 0x20 || c >= 0x80; });
}

/// To what ends a string of valid JSON, or begins an escape in it.
inline const char* to_quote_or_escape(const char* p, const char* end) noexcept {
  return first(
      p, end, [](auto w) { return equal(w, '"') | equal(w, '\\'); },
      [](unsigned char c) { return c == '"' || c == '\\'; });
}

inline const char* past_ascii(const char* p, const char* end) noexcept {
  return first(
      p, end, [](auto w) { return not_ascii(w); }, [](unsigned char c) { return c >= 0x80; });
}

/// To a C0 control or DEL: what a header's value must not hold (a tab aside).
inline const char* to_control(const char* p, const char* end) noexcept {
  return first(
      p, end, [](auto w) { return below(w, 0x20) | equal(w, 0x7f); },
      [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

/// Past what may stand in one word of a credential (RFC 6750's b64token, and more): to a space, a control, a
/// byte that is not ASCII, or what separates parameters.
inline const char* past_token(const char* p, const char* end) noexcept {
  return first(
      p, end,
      [](auto w) {
        return below(w, 0x21) | equal(w, 0x7f) | not_ascii(w) | equal(w, ',') | equal(w, '"') | equal(w, ';');
      },
      [](unsigned char c) { return c <= ' ' || c >= 0x7f || c == ',' || c == '"' || c == ';'; });
}

}  // namespace mcpgw::detail::scan
