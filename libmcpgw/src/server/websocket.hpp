// The WebSocket wire format (RFC 6455), the server's side, without extensions and without sockets.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace mcpgw::detail::server {

enum class WebSocketOpcode : std::uint8_t {
  continuation = 0,
  text = 1,
  binary = 2,
  close = 8,
  ping = 9,
  pong = 10
};

/// One final, unmasked frame, as servers send them. Control frames hold at most 125 bytes.
std::string websocket_frame(WebSocketOpcode opcode, std::string_view payload);
/// A close frame. A code that must not be sent becomes 1011; the reason is cut to what fits, between
/// characters.
std::string websocket_close_frame(int code, std::string_view reason);
/// Whether a close frame may hold this code (RFC 6455 7.4 and the registry).
bool is_websocket_close_code(int code) noexcept;
/// The Sec-WebSocket-Accept for a key.
std::string websocket_accept(std::string_view key);

/// UTF-8 in pieces: refuses at the first byte that cannot be right.
class Utf8Checker {
 public:
  bool feed(std::string_view bytes) noexcept;
  bool complete() const noexcept { return more_ == 0; }
  void reset() noexcept { more_ = 0; }

 private:
  std::uint8_t more_ = 0;  ///< bytes that the current character still needs
  std::uint8_t low_ = 0x80;
  std::uint8_t high_ = 0xbf;  ///< the range of the next one
};

/// Frames of a client become messages. Not thread-safe.
class WebSocketDecoder {
 public:
  enum class Progress { need_more, text, binary, ping, pong, close, failed };

  explicit WebSocketDecoder(std::size_t max_message) noexcept : max_message_(max_message) {}

  /// Takes bytes off the front of `data` up to the end of one message or control frame. need_more: all were
  /// taken. After close and failed nothing more may be fed.
  Progress next(std::string_view& data);
  /// Of the message or control frame just completed; the reason of a close.
  std::string take_payload() noexcept { return std::move(payload_); }
  /// close: the client's code, 1005 when it gave none. failed: the code to close with (1002, 1007, 1009).
  int code() const noexcept { return code_; }

 private:
  static constexpr std::size_t kMaxHeader = 14;

  Progress fail(int code) noexcept;
  /// False when the header is refused.
  bool begin_frame();
  bool take_bytes(std::string_view bytes);
  Progress end_frame();
  Progress end_close();

  const std::size_t max_message_;
  std::array<unsigned char, kMaxHeader> header_{};
  std::size_t header_size_ = 0;
  std::size_t header_need_ = 2;
  std::uint64_t remaining_ = 0;  ///< bytes of the frame's payload
  std::uint32_t mask_at_ = 0;
  std::array<unsigned char, 4> mask_{};
  bool in_payload_ = false;
  bool final_ = false;
  WebSocketOpcode opcode_ = WebSocketOpcode::continuation;  ///< of the current frame
  WebSocketOpcode message_ =
      WebSocketOpcode::continuation;  ///< of the message in progress; continuation: none
  std::string data_;                  ///< of the message in progress
  std::string control_;               ///< of the control frame in progress
  std::string payload_;
  Utf8Checker utf8_;
  int code_ = 0;
};

}  // namespace mcpgw::detail::server
