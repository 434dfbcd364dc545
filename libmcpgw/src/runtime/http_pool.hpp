// Connections kept open between requests: one pool for each loop, used on that loop alone, so without a lock.
#pragma once

#include <memory>
#include <vector>

#include "runtime/connection.hpp"
#include "runtime/url.hpp"

namespace mcpgw::detail {

class HttpPool final : public IdleOwner {
 public:
  HttpPool(Loop& loop, std::size_t max_idle, std::chrono::milliseconds idle_timeout)
      : loop_(loop), max_idle_(max_idle), idle_timeout_(idle_timeout) {}
  ~HttpPool() { close_idle(); }
  HttpPool(const HttpPool&) = delete;
  HttpPool& operator=(const HttpPool&) = delete;

  Loop& loop() noexcept { return loop_; }
  /// The most recently used connection to there that is still good; nullptr when there is none.
  std::shared_ptr<Connection> take(const Url& url);
  void give_back(std::shared_ptr<Connection> connection);
  void close_idle();
  /// Nothing is kept from now on.
  void close() {
    closed_ = true;
    close_idle();
  }
  void idle_ended(Connection& connection) override;
  std::size_t idle() const noexcept { return idle_.size(); }

 private:
  Loop& loop_;
  const std::size_t max_idle_;
  const std::chrono::milliseconds idle_timeout_;
  bool closed_ = false;
  std::vector<std::shared_ptr<Connection>> idle_;  // longest idle first
};

}  // namespace mcpgw::detail
