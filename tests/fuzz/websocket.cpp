// The WebSocket decoder: however the bytes are cut, the same messages come out, and what is passed on is in
// order.
#include "server/websocket.hpp"

#include <string>
#include <vector>

#include "base/text.hpp"
#include "fuzz/promise.hpp"
#include "fuzz/targets.hpp"

namespace mcpgw::fuzz {
namespace {

using detail::server::WebSocketDecoder;
using Progress = WebSocketDecoder::Progress;
constexpr std::size_t kMaxMessage = 1000;

struct Event {
  Progress what;
  std::string payload;
  int code = 0;
  bool operator==(const Event& other) const {
    return what == other.what && payload == other.payload && code == other.code;
  }
};

std::vector<Event> decode(std::string_view input, std::size_t step) {
  WebSocketDecoder decoder(kMaxMessage);
  std::vector<Event> out;
  while (!input.empty()) {
    std::string_view piece = input.substr(0, step);
    input.remove_prefix(piece.size());
    while (!piece.empty()) {
      const Progress progress = decoder.next(piece);
      if (progress == Progress::need_more) {
        promise(piece.empty(), "what is not complete takes everything");
        break;
      }
      Event event{progress, {}, decoder.code()};
      if (progress != Progress::failed) event.payload = decoder.take_payload();
      const bool control =
          progress == Progress::ping || progress == Progress::pong || progress == Progress::close;
      promise(event.payload.size() <= (control ? 125 : kMaxMessage), "messages are bounded");
      if (progress == Progress::text || progress == Progress::close)
        promise(detail::is_utf8(event.payload), "text is UTF-8");
      const bool last = progress == Progress::failed || progress == Progress::close;
      if (last && event.code != 1005)
        promise(detail::server::is_websocket_close_code(event.code), "codes are good ones");
      out.push_back(std::move(event));
      if (last) return out;
    }
  }
  return out;
}

}  // namespace

void websocket(std::string_view input) {
  const auto whole = decode(input, input.size() + 1);
  for (const std::size_t step : {std::size_t{1}, std::size_t{5}, input.size() / 2 + 1})
    promise(decode(input, step) == whole, "cuts change nothing");
}

}  // namespace mcpgw::fuzz
