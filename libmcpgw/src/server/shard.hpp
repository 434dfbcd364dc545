// Shard: the server's part on one loop: its connections, their deadlines, and its share of accepting.
#pragma once

#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/poller.hpp"
#include "server/connection.hpp"
#include "server/httplib_parser.hpp"
#include "server/listener.hpp"

namespace mcpgw::detail::server {

/// Everything but the constructor and the atomics runs on the loop.
class Shard final : public Pollable, public std::enable_shared_from_this<Shard> {
 public:
  Shard(Loop& loop, std::shared_ptr<ServerContext> context, RequestHandler& handler);
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
  Poller& poller() noexcept { return loop_.poller(); }
  void enlist(Connection& connection, Connection::Wait wait, std::chrono::steady_clock::duration patience);
  void remove(Connection& connection);

 private:
  struct List {
    Connection* first = nullptr;
    Connection* last = nullptr;
  };
  static constexpr auto kLists = static_cast<std::size_t>(Connection::Wait::count);

  /// Somebody wants to connect.
  void on_event(std::uint32_t events) override;
  void accept_from(int listener);
  void watch_listeners();
  void unwatch_listeners();
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
  SteadyTimer timer_;
  SteadyTimer accept_timer_;
  std::chrono::steady_clock::time_point armed_ = std::chrono::steady_clock::time_point::max();
  std::vector<std::shared_ptr<SharedFd>> listeners_;
  std::vector<Poller::Token> watched_;  ///< of the listeners
  std::array<List, kLists> lists_;
  std::vector<char> scratch_;
  std::vector<char> plain_scratch_;
  bool stopped_ = false;

  std::atomic<std::size_t> load_{0};                  ///< connections here
  std::atomic<std::int64_t> oldest_idle_{INT64_MAX};  ///< deadline of the connection that is idle longest
};

}  // namespace mcpgw::detail::server
