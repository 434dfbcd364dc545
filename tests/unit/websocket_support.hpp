// The client's side of WebSocket frames, for tests.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "server/websocket.hpp"

namespace mcpgw::testing {

using detail::server::WebSocketOpcode;

struct FrameForm {
  bool final = true;
  bool masked = true;
  unsigned reserved = 0;       ///< RSV1 is 4
  int size_bytes = -1;         ///< 0, 2 or 8: a form of the length of the test's own
  std::uint64_t size = ~0ull;  ///< claimed instead of the real one
};

/// A frame as clients send them, or as they must not.
inline std::string client_frame(WebSocketOpcode opcode, std::string_view payload, FrameForm form = {}) {
  const std::uint64_t size = form.size != ~0ull ? form.size : payload.size();
  int bytes = size <= 125 ? 0 : size <= 0xffff ? 2 : 8;
  if (form.size_bytes >= 0) bytes = form.size_bytes;
  std::string out;
  out += static_cast<char>((form.final ? 0x80u : 0u) | form.reserved << 4 | static_cast<unsigned>(opcode));
  const unsigned mask_bit = form.masked ? 0x80u : 0u;
  out += static_cast<char>(mask_bit | (bytes == 0 ? static_cast<unsigned>(size) : bytes == 2 ? 126u : 127u));
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(size >> (8 * i) & 0xff);
  constexpr std::string_view kMask = "\x12\x9a\x5c\xf0";
  if (form.masked) out += kMask;
  for (std::size_t i = 0; i < payload.size(); ++i)
    out += form.masked ? static_cast<char>(payload[i] ^ kMask[i % 4]) : payload[i];
  return out;
}

inline std::string client_close(int code, std::string_view reason = {}) {
  std::string payload{static_cast<char>(code >> 8), static_cast<char>(code & 0xff)};
  payload += reason;
  return client_frame(WebSocketOpcode::close, payload);
}

struct ServerFrame {
  WebSocketOpcode opcode{};
  std::string payload;
  bool final = false;
  bool reserved = false;  ///< one of RSV1 to RSV3 is set
  bool masked = false;
  int code() const {
    return payload.size() < 2
               ? 1005
               : static_cast<unsigned char>(payload[0]) << 8 | static_cast<unsigned char>(payload[1]);
  }
};

/// The next frame that a client gets; nullopt when the connection ended first. `Client` is a RawClient.
template <class Client>
std::optional<ServerFrame> read_server_frame(Client& client) {
  std::string head;
  if (!client.take_bytes(2, head)) return std::nullopt;
  ServerFrame out;
  out.final = (head[0] & 0x80) != 0;
  out.reserved = (head[0] & 0x70) != 0;
  out.masked = (head[1] & 0x80) != 0;
  out.opcode = static_cast<WebSocketOpcode>(head[0] & 0x0f);
  std::uint64_t size = static_cast<unsigned char>(head[1]);
  if (size >= 126) {
    std::string length;
    if (!client.take_bytes(size == 126 ? 2 : 8, length)) return std::nullopt;
    size = 0;
    for (const char c : length) size = size << 8 | static_cast<unsigned char>(c);
  }
  if (!client.take_bytes(size, out.payload)) return std::nullopt;
  return out;
}

constexpr const char* kSampleKey = "dGhlIHNhbXBsZSBub25jZQ==";

inline std::string upgrade_request(std::string_view target = "/ws", std::string_view more = {}) {
  return std::string("GET ").append(target).append(
             " HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
             "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ") +
         kSampleKey + "\r\n" + std::string(more) + "\r\n";
}

}  // namespace mcpgw::testing
