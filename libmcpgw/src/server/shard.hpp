// Shard: the server's part on one loop. It polls its connections and the listening socket with an epoll of
// its own, which Asio watches as one descriptor: a busy loop then costs one receive and one send a request.
#pragma once

#include <array>
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <memory>
#include <utility>
#include <vector>

#include "server/connection.hpp"
#include "server/httplib_parser.hpp"
#include "server/listener.hpp"

namespace mcpgw::detail::server {

/// Everything but the constructor and the atomics runs on the loop.
class Shard : public std::enable_shared_from_this<Shard> {
 public:
  Shard(Loop& loop, std::shared_ptr<ServerContext> context, RequestHandler& handler, int epoll_fd);
  ~Shard();

  /// All shards of the server, once, before listen(). They live as long as one of them does work.
  void set_peers(std::vector<Shard*> peers) { peers_ = std::move(peers); }
  void listen(std::vector<std::shared_ptr<SharedFd>> listeners);
  void drain();
  void stop();

  Loop& loop() noexcept { return loop_; }
  const std::shared_ptr<LoopPort>& port() const noexcept { return port_; }
  const std::shared_ptr<ServerContext>& context() const noexcept { return context_; }
  RequestHandler& handler() noexcept { return handler_; }
  HttplibParser& parser() noexcept { return parser_; }

  /// Memory for one receive.
  char* scratch() noexcept { return scratch_.data(); }
  std::size_t scratch_size() const noexcept { return scratch_.size(); }
  /// The same for what was received, decrypted.
  char* plain_scratch() noexcept { return plain_scratch_.data(); }
  std::size_t plain_scratch_size() const noexcept { return plain_scratch_.size(); }

  // For connections.
  bool watch(int fd, std::uint32_t events, Connection* connection, bool known);
  void unwatch(int fd);
  void enlist(Connection& connection, Connection::Wait wait, std::chrono::steady_clock::duration patience);
  void remove(Connection& connection);
  /// Keeps a closed connection until the events at hand, which may name it, are through.
  void bury(std::shared_ptr<Connection> connection);

 private:
  struct List {
    Connection* first = nullptr;
    Connection* last = nullptr;
  };
  static constexpr auto kLists = static_cast<std::size_t>(Connection::Wait::count);

  void wait_for_events();
  void poll();
  void accept_some();
  void accept_from(int listener);
  void watch_listeners();
  void place(int fd, const AddressBytes& peer);
  void adopt(int fd, const AddressBytes& peer, bool make_room);
  void pause_accepting(int error);
  void unlink(Connection& connection);
  void note_idle();
  void arm(std::chrono::steady_clock::time_point deadline);
  void on_timer();

  Loop& loop_;
  const std::shared_ptr<ServerContext> context_;
  const std::shared_ptr<LoopPort> port_;
  RequestHandler& handler_;  ///< the server's; not called after stop()
  HttplibParser parser_;
  std::vector<Shard*> peers_;
  const int epoll_fd_;
  asio::posix::basic_stream_descriptor<Executor> poller_;
  SteadyTimer timer_;
  SteadyTimer accept_timer_;
  std::chrono::steady_clock::time_point armed_ = std::chrono::steady_clock::time_point::max();
  std::vector<std::shared_ptr<SharedFd>> listeners_;
  std::array<List, kLists> lists_;
  std::vector<std::shared_ptr<Connection>> grave_;
  std::vector<char> scratch_;
  std::vector<char> plain_scratch_;
  bool polling_ = false;
  bool stopped_ = false;

  std::atomic<std::size_t> load_{0};                  ///< connections here
  std::atomic<std::int64_t> oldest_idle_{INT64_MAX};  ///< deadline of the connection that is idle longest
};

}  // namespace mcpgw::detail::server
