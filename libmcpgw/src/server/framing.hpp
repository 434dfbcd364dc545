// RequestReader: finds where one HTTP/1.1 request ends, and refuses everything that two parsers could read
// differently (RFC 9112, the strict reading). No socket, no allocation for a request that arrives in one
// piece.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mcpgw::detail::server {

struct FramingLimits {
  std::size_t max_request_line = 8 * 1024;   ///< with its CRLF
  std::size_t max_header_bytes = 32 * 1024;  ///< request line and headers; also trailers
  std::size_t max_headers = 100;
  std::size_t max_body = 8 * 1024 * 1024;
};

/// Why a request was refused: static texts, nothing of the request.
struct FramingError {
  int status = 0;
  const char* code = "";
  const char* message = "";
};

struct HeaderView {
  std::string_view name;
  std::string_view value;  ///< without surrounding blanks, otherwise as received
};

/// Not thread-safe.
class RequestReader {
 public:
  enum class Progress { need_more, complete, failed };

  struct Span {
    std::uint32_t at = 0;
    std::uint32_t size = 0;
  };
  struct HeaderSpan {
    Span name;
    Span value;
  };
  /// A head that was read; places are in its bytes.
  struct Head {
    std::vector<HeaderSpan> headers;
    Span method;
    Span target;
    Span length;  ///< the digits of its Content-Length
    std::size_t size = 0;
    bool http11 = true;
    bool keep_alive = true;
    bool chunked = false;
    bool expect = false;  ///< its sender waits for "100 Continue"
  };

  explicit RequestReader(const FramingLimits& limits) noexcept : limits_(&limits) {}

  /// Takes bytes off the front of `data`. need_more: all were taken. complete: `used` of them were, and the
  /// request can be looked at until next() and as long as `data` lives. failed: see error(); nothing more may
  /// be fed. `known`: what was read, if the reader is idle, from the
  /// head that `data` begins with; but for the digits of its length.
  Progress feed(std::string_view data, std::size_t& used, const Head* known = nullptr);
  const FramingError& error() const noexcept { return error_; }

  /// No byte of a request has come yet (a blank line before it is none).
  bool idle() const noexcept {
    return stage_ == Stage::head && (kept_.empty() || (skipped_blank_ && kept_.size() == 2));
  }
  /// Once per request, when its head is complete and its sender waits for "100 Continue" with the body.
  bool take_continue() noexcept;

  // The head: valid once it is complete (also after a refusal of the body).
  bool head_complete() const noexcept { return stage_ != Stage::head; }
  std::string_view method() const noexcept { return text(head_.method); }
  std::string_view target() const noexcept { return text(head_.target); }
  bool http11() const noexcept { return head_.http11; }
  bool keep_alive() const noexcept { return head_.keep_alive; }
  std::size_t header_count() const noexcept { return head_.headers.size(); }
  HeaderView header(std::size_t index) const noexcept {
    return {text(head_.headers[index].name), text(head_.headers[index].value)};
  }
  /// The first value, names compared ignoring case; data() is nullptr when absent.
  std::string_view find(std::string_view name) const noexcept;
  std::string_view head_bytes() const noexcept { return {base_, head_.size}; }
  const Head& head() const noexcept { return head_; }
  std::string_view text(Span span) const noexcept { return {base_ + span.at, span.size}; }

  std::string take_body() noexcept { return std::move(body_); }
  /// Starts on the next request.
  void next() noexcept;

 private:
  enum class Stage : std::uint8_t { head, fixed_body, chunk_size, chunk_data, chunk_end, trailers, done };
  Progress fail(int status, const char* code, const char* message) noexcept;
  Progress bad(const char* message) noexcept { return fail(400, "invalid_request", message); }
  bool refused() const noexcept { return error_.status != 0; }

  Progress feed_head(std::string_view data, std::size_t& used);
  void scan_lines(std::size_t size);
  void request_line(std::size_t begin, std::size_t end);
  void header_line(std::size_t begin, std::size_t end);
  bool framing_header(std::string_view name, std::string_view value);
  void finish_head();
  /// False when the body would be too large.
  bool begin_known(std::string_view data, const Head& known, std::size_t& used);
  void begin_body();
  Progress feed_body(std::string_view data, std::size_t& used);
  /// Collects a line of the chunked coding in line_; true when it is complete.
  bool take_line(std::string_view data, std::size_t& used, std::size_t limit);
  void chunk_size_line();
  void trailer_line();

  const FramingLimits* limits_;
  const char* base_ = nullptr;  ///< where spans point: kept_, or the caller's bytes during one call
  std::string kept_;            ///< bytes of the head kept between calls
  std::string line_;            ///< a line of the chunked coding
  std::string body_;
  Head head_;
  std::size_t line_start_ = 0;
  std::size_t scan_ = 0;
  std::size_t remaining_ = 0;  ///< of the body or the current chunk
  std::size_t overhead_ = 0;   ///< bytes of chunk extensions and trailers
  std::size_t trailer_count_ = 0;
  FramingError error_;
  Stage stage_ = Stage::head;
  bool have_request_line_ = false;
  bool skipped_blank_ = false;
  bool close_ = false;
  bool asked_keep_alive_ = false;
  bool have_length_ = false;
  bool have_host_ = false;
  bool continued_ = false;  ///< take_continue() was called
};

/// RFC 9110 token.
bool is_token(std::string_view text) noexcept;

}  // namespace mcpgw::detail::server
