// Parsing HTTP/1 answers: the head, and bodies in each framing. Strict where leniency has let two parsers see
// two different messages: no bare LF, no folded lines, no two lengths.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "mcpgw/http.hpp"

namespace mcpgw::detail {

enum class Parse { more, done, malformed, too_large };

enum class Framing { none, length, chunked, until_close };

struct ResponseHead {
  int status = 0;
  HttpHeaders headers;
  Framing framing = Framing::none;
  std::uint64_t length = 0;
  bool keep_alive = false;
};

bool is_token(std::string_view text) noexcept;
/// Visible characters, spaces, tabs and bytes from 0x80: what may stand in a field value.
bool is_field_value(std::string_view text) noexcept;

/// Finds and reads one response head at the start of a growing buffer.
class HeadParser {
 public:
  explicit HeadParser(std::size_t max_bytes) : max_(max_bytes) {}
  /// `buffer` begins with the same bytes each time and has grown in between. done: `head` is filled and
  /// size() bytes belong to it.
  Parse parse(std::string_view buffer, bool head_request, ResponseHead& head);
  std::size_t size() const noexcept { return line_start_; }

 private:
  const std::size_t max_;
  std::size_t line_start_ = 0;
  std::size_t scanned_ = 0;
};

/// Takes the chunked coding off a body, any number of bytes at a time.
class ChunkDecoder {
 public:
  /// `max_overhead` bounds the bytes of chunk extensions and trailers in all.
  explicit ChunkDecoder(std::size_t max_overhead) : overhead_left_(max_overhead) {}
  /// Appends decoded bytes to `out` and sets `used`. done: the body ended at `used`.
  Parse feed(std::string_view in, std::string& out, std::size_t& used);

 private:
  enum class State {
    size_start,
    size,
    space,
    extension,
    size_lf,
    data,
    data_cr,
    data_lf,
    trailer,
    trailer_lf,
    end
  };
  State state_ = State::size_start;
  std::uint64_t left_ = 0;
  int digits_ = 0;
  std::size_t overhead_left_;
  std::string trailer_;
};

}  // namespace mcpgw::detail
