// A Connection that has become a WebSocket.
#include <utility>

#include "server/connection.hpp"
#include "server/shard.hpp"

namespace mcpgw::detail::server {

void Connection::receive_frames(std::string_view data) {
  const auto keep = shared_from_this();
  while (phase_ == Phase::websocket && !data.empty()) {
    WebSocketDecoder& decoder = socket_->decoder;
    switch (decoder.next(data)) {
      case WebSocketDecoder::Progress::need_more:
        break;
      case WebSocketDecoder::Progress::text:
        deliver(decoder.take_payload());
        break;
      case WebSocketDecoder::Progress::binary:
        if (socket_->on_text) end_websocket(1003, websocket_close_frame(1003, "Text only"), false);
        break;
      case WebSocketDecoder::Progress::ping:
        // Whoever asks without reading our answers is too slow as well.
        if (unsent() >= socket_->max_queued_bytes) {
          end_websocket(1013, websocket_close_frame(1013, "Too slow"), true);
        } else {
          queue(websocket_frame(WebSocketOpcode::pong, decoder.take_payload()));
        }
        break;
      case WebSocketDecoder::Progress::pong:
        socket_->awaits_pong = false;
        break;
      case WebSocketDecoder::Progress::close: {
        const int code = decoder.code();
        end_websocket(
            code,
            code == 1005 ? websocket_frame(WebSocketOpcode::close, {}) : websocket_close_frame(code, {}),
            true);
        linger_ = !data.empty();
        break;
      }
      case WebSocketDecoder::Progress::failed:
        end_websocket(decoder.code(), websocket_close_frame(decoder.code(), {}), true);
        break;
    }
  }
  if (phase_ != Phase::closed) write_out();
}

void Connection::deliver(std::string text) {
  // Out of the channel during the call: the end of the socket drops what is there.
  auto on_text = std::exchange(socket_->on_text, nullptr);
  if (!on_text) return;
  bool failed = false;
  called_ = true;
  try {
    on_text(std::move(text));
  } catch (...) {
    failed = true;  // the text of an exception may hold anything: it is not ours to log
  }
  called_ = false;
  if (phase_ == Phase::closed) return;
  socket_->on_text = std::move(on_text);
  collect();
  if (failed && phase_ == Phase::websocket) {
    context_->log(LogLevel::error, "A WebSocket's message callback threw an exception");
    end_websocket(1011, websocket_close_frame(1011, {}), true);
  }
}

void Connection::end_websocket(int code, std::string frame, bool drop) {
  std::vector<std::string> late;
  std::function<void()> callback;  // destroyed outside the lock
  {
    const std::lock_guard lock(mutex_);
    answering_ = false;
    ended_ = true;
    late.swap(outbox_);
    callback = std::exchange(disconnected_, nullptr);
  }
  for (std::string& bytes : late) out_.push_back(std::move(bytes));
  if (drop) {
    const std::size_t keep = out_index_ + (out_offset_ == 0 ? 0 : 1);  // a frame begun is completed
    for (std::size_t i = keep; i < out_.size(); ++i)
      queued_.fetch_sub(out_[i].size(), std::memory_order_relaxed);
    if (keep < out_.size()) out_.resize(keep);
  }
  queue(std::move(frame));
  phase_ = Phase::closing;
  linger_ = true;
  in_ = {};
  report_close(*socket_, code);
}

/// Once: the callbacks are gone afterwards.
void Connection::report_close(WebSocketChannel& channel, int code) {
  channel.on_text = nullptr;
  auto on_close = std::exchange(channel.on_close, nullptr);
  if (!on_close) return;
  auto report = [on_close = std::move(on_close), code] { on_close(code); };
  if (called_) {
    port_->post(std::move(report));  // never inside a handler's own call
  } else {
    report();
  }
}

void Connection::ask_for_pong() {
  socket_->awaits_pong = true;
  queue(websocket_frame(WebSocketOpcode::ping, {}));
}

}  // namespace mcpgw::detail::server
