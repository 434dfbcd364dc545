#include "server/websocket.hpp"

#include <openssl/sha.h>

#include <algorithm>

#include "base/text.hpp"

namespace mcpgw::detail::server {
namespace {

constexpr std::size_t kMaxControl = 125;
constexpr std::string_view kGuid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

bool is_control(WebSocketOpcode opcode) noexcept { return static_cast<unsigned>(opcode) >= 8; }

}  // namespace

std::string websocket_frame(WebSocketOpcode opcode, std::string_view payload) {
  std::string out;
  out.reserve(payload.size() + 10);
  out += static_cast<char>(0x80 | static_cast<unsigned>(opcode));
  const std::uint64_t size = payload.size();
  const auto append_size = [&](int bytes) {
    for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8)
      out += static_cast<char>((size >> shift) & 0xff);
  };
  if (size <= 125) {
    append_size(1);
  } else if (size <= 0xffff) {
    out += static_cast<char>(126);
    append_size(2);
  } else {
    out += static_cast<char>(127);
    append_size(8);
  }
  out += payload;
  return out;
}

bool is_websocket_close_code(int code) noexcept {
  if (code >= 3000 && code <= 4999) return true;
  return code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
}

std::string websocket_close_frame(int code, std::string_view reason) {
  if (!is_websocket_close_code(code)) code = 1011;
  std::size_t size = std::min(reason.size(), kMaxControl - 2);
  while (size != 0 && size < reason.size() && (static_cast<unsigned char>(reason[size]) & 0xc0) == 0x80)
    --size;
  std::string payload{static_cast<char>(code >> 8), static_cast<char>(code & 0xff)};
  payload += reason.substr(0, size);
  return websocket_frame(WebSocketOpcode::close, payload);
}

std::string websocket_accept(std::string_view key) {
  std::string text(key);
  text += kGuid;
  std::array<unsigned char, SHA_DIGEST_LENGTH> digest{};
  ::SHA1(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return base64({reinterpret_cast<const char*>(digest.data()), digest.size()});
}

bool Utf8Checker::feed(std::string_view bytes) noexcept {
  for (const char c : bytes) {
    const auto u = static_cast<unsigned char>(c);
    if (more_ != 0) {
      if (u < low_ || u > high_) return false;
      low_ = 0x80;
      high_ = 0xbf;
      --more_;
      continue;
    }
    if (u < 0x80) continue;
    if (u < 0xc2 || u > 0xf4) return false;
    more_ = u < 0xe0 ? 1 : u < 0xf0 ? 2 : 3;
    // The second byte tells overlong forms, surrogates and what lies beyond U+10FFFF.
    if (u == 0xe0) low_ = 0xa0;
    if (u == 0xed) high_ = 0x9f;
    if (u == 0xf0) low_ = 0x90;
    if (u == 0xf4) high_ = 0x8f;
  }
  return true;
}

WebSocketDecoder::Progress WebSocketDecoder::fail(int code) noexcept {
  code_ = code;
  return Progress::failed;
}

WebSocketDecoder::Progress WebSocketDecoder::next(std::string_view& data) {
  if (code_ != 0) return Progress::failed;
  while (!data.empty()) {
    if (!in_payload_) {
      header_[header_size_++] = static_cast<unsigned char>(data.front());
      data.remove_prefix(1);
      if (header_size_ == 2) {
        const unsigned length = header_[1] & 0x7f;
        // What is wrong is said at once, not when the rest has come.
        if ((header_[1] & 0x80) == 0) return fail(1002);
        header_need_ = 6u + (length == 126 ? 2 : length == 127 ? 8 : 0);
      }
      if (header_size_ < header_need_) continue;
      if (!begin_frame()) return Progress::failed;
    } else {
      const auto take = static_cast<std::size_t>(std::min<std::uint64_t>(remaining_, data.size()));
      if (!take_bytes(data.substr(0, take))) return Progress::failed;
      data.remove_prefix(take);
    }
    if (remaining_ != 0) continue;
    in_payload_ = false;
    header_size_ = 0;
    header_need_ = 2;
    const Progress progress = end_frame();
    if (progress != Progress::need_more) return progress;
  }
  return Progress::need_more;
}

bool WebSocketDecoder::begin_frame() {
  const unsigned first = header_[0];
  final_ = (first & 0x80) != 0;
  opcode_ = static_cast<WebSocketOpcode>(first & 0x0f);
  if ((first & 0x70) != 0) return fail(1002), false;  // no extension was agreed on
  const unsigned length = header_[1] & 0x7f;
  std::uint64_t size = length;
  std::size_t at = 2;
  if (length >= 126) {
    const std::size_t bytes = length == 126 ? 2 : 8;
    size = 0;
    for (std::size_t i = 0; i < bytes; ++i) size = size << 8 | header_[at + i];
    at += bytes;
    // Two encodings of one length would be two readings of one frame.
    if (size < (length == 126 ? 126u : 65536u) || size >> 63 != 0) return fail(1002), false;
  }
  std::copy_n(header_.begin() + static_cast<std::ptrdiff_t>(at), 4, mask_.begin());
  mask_at_ = 0;
  remaining_ = size;
  in_payload_ = true;
  switch (opcode_) {
    case WebSocketOpcode::continuation:
      if (message_ == WebSocketOpcode::continuation) return fail(1002), false;
      break;
    case WebSocketOpcode::text:
    case WebSocketOpcode::binary:
      if (message_ != WebSocketOpcode::continuation) return fail(1002), false;
      message_ = opcode_;
      break;
    case WebSocketOpcode::close:
    case WebSocketOpcode::ping:
    case WebSocketOpcode::pong:
      if (!final_ || size > kMaxControl) return fail(1002), false;
      control_.clear();
      return true;
    default:
      return fail(1002), false;
  }
  if (size > max_message_ - data_.size()) return fail(1009), false;
  return true;
}

bool WebSocketDecoder::take_bytes(std::string_view bytes) {
  std::string& out = is_control(opcode_) ? control_ : data_;
  const std::size_t from = out.size();
  out.append(bytes);
  for (std::size_t i = from; i < out.size(); ++i) {
    out[i] = static_cast<char>(static_cast<unsigned char>(out[i]) ^ mask_[mask_at_]);
    mask_at_ = (mask_at_ + 1) & 3;
  }
  remaining_ -= bytes.size();
  const bool text = !is_control(opcode_) && message_ == WebSocketOpcode::text;
  if (text && !utf8_.feed(std::string_view(out).substr(from))) return fail(1007), false;
  return true;
}

WebSocketDecoder::Progress WebSocketDecoder::end_frame() {
  if (opcode_ == WebSocketOpcode::close) return end_close();
  if (is_control(opcode_)) {
    payload_ = std::move(control_);
    control_.clear();
    return opcode_ == WebSocketOpcode::ping ? Progress::ping : Progress::pong;
  }
  if (!final_) return Progress::need_more;
  const bool text = message_ == WebSocketOpcode::text;
  if (text && !utf8_.complete()) return fail(1007);
  utf8_.reset();
  message_ = WebSocketOpcode::continuation;
  payload_ = std::move(data_);
  data_.clear();
  return text ? Progress::text : Progress::binary;
}

WebSocketDecoder::Progress WebSocketDecoder::end_close() {
  if (control_.empty()) {
    code_ = 1005;
    return Progress::close;
  }
  if (control_.size() == 1) return fail(1002);
  const int code = static_cast<unsigned char>(control_[0]) << 8 | static_cast<unsigned char>(control_[1]);
  if (!is_websocket_close_code(code)) return fail(1002);
  payload_ = control_.substr(2);
  if (!is_utf8(payload_)) return fail(1007);
  code_ = code;
  return Progress::close;
}

}  // namespace mcpgw::detail::server
