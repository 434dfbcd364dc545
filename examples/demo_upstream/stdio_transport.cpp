#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <iostream>

#include "mcp_server.hpp"
#include "transports.hpp"

namespace demo {

namespace {

constexpr std::size_t kMaxLine = 64 * 1024 * 1024;

void write_line(const Json& message) {
  // Blocking, from the one thread there is: lines never mix, and a client that does not read slows only
  // itself.
  std::cout << message.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n' << std::flush;
}

asio::awaitable<void> send_notification(Json message) {
  write_line(message);
  co_return;
}

asio::awaitable<void> answer(std::shared_ptr<Session> session, Json message) {
  Caller caller;
  caller.over_stdio = true;
  const auto reply =
      co_await handle_message(std::move(session), std::move(message), std::move(caller), send_notification);
  if (reply) write_line(*reply);
}

asio::awaitable<void> read_lines(asio::io_context& context) {
  asio::posix::stream_descriptor input(context, ::dup(STDIN_FILENO));
  const auto session = std::make_shared<Session>();
  std::string buffer;
  for (;;) {
    boost::system::error_code error;
    const auto length = co_await asio::async_read_until(input, asio::dynamic_buffer(buffer, kMaxLine), '\n',
                                                        asio::redirect_error(asio::use_awaitable, error));
    if (error) break;
    Json message =
        Json::parse(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(length), nullptr, false);
    buffer.erase(0, length);
    if (message.is_discarded())
      write_line(rpc_error(nullptr, -32700, "Not JSON"));
    else  // a slow call does not hold up the next message
      asio::co_spawn(context, answer(session, std::move(message)), asio::detached);
  }
  context.stop();
}

}  // namespace

void serve_stdio(asio::io_context& context) { asio::co_spawn(context, read_lines(context), asio::detached); }

}  // namespace demo
