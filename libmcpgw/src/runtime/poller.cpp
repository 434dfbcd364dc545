#include "runtime/poller.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <system_error>
#include <utility>

#include "base/moment.hpp"

namespace mcpgw::detail {
namespace {

constexpr int kEventsAtOnce = 128;
constexpr int kBusy = 4;  // events of one round: worth another one, and steps
constexpr int kRounds = 4;
constexpr std::size_t kSameMoment = 16;  // steps

void report(const std::exception& e) {
  std::fprintf(stderr, "mcpgw: a callback on a socket threw: %s\n", e.what());
}

int make_epoll() {
  const int fd = ::epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
  return fd;
}

}  // namespace

Poller::Poller(Loop& loop) : epoll_fd_(make_epoll()), events_(loop.executor(), epoll_fd_) {
  wait_for_events();
}

Poller::~Poller() = default;

void Poller::wait_for_events() {
  events_.async_wait(asio::posix::descriptor_base::wait_read, [this](const boost::system::error_code& error) {
    if (error) return;
    poll();
    wait_for_events();
  });
}

void Poller::poll() {
  // Under load the next events are there by now: Asio, and what it costs to ask it, has its turn after a few
  // rounds.
  for (int round = 0, count = kBusy; round < kRounds && count >= kBusy; ++round) count = take_events();
}

int Poller::take_events() {
  std::array<epoll_event, kEventsAtOnce> events;
  const int count = ::epoll_wait(epoll_fd_, events.data(), kEventsAtOnce, 0);
  Moment moment;
  polling_ = true;
  stepping_ = count >= kBusy;
  for (std::size_t i = 0; i < static_cast<std::size_t>(std::max(count, 0)); ++i) {
    if (!stepping_ || i % kSameMoment == 0) moment.pass();
    const epoll_event& event = events[i];
    const Slot* slot = find(event.data.u64);
    if (slot == nullptr) continue;
    try {
      slot->watched->on_event(event.events);
    } catch (const std::exception& e) {
      report(e);
    }
  }
  take_steps(moment);
  polling_ = stepping_ = false;
  grave_.clear();
  return count;
}

void Poller::take_steps(Moment& moment) {
  // Steps put off others, behind what is there.
  for (std::size_t i = 0; i < put_off_.size(); ++i) {
    if (i % kSameMoment == 0) moment.pass();
    PutOff one = std::move(put_off_[i]);
    try {
      std::move(one)();
    } catch (const std::exception& e) {
      report(e);
    }
  }
  put_off_.clear();
}

Poller* Poller::stepping() noexcept {
  Loop* const loop = Loop::current();
  return loop != nullptr && loop->poller().stepping_ ? &loop->poller() : nullptr;
}

Poller::Slot* Poller::find(Token token) noexcept {
  const auto index = static_cast<std::uint32_t>(token);
  if (index >= slots_.size()) return nullptr;
  Slot& slot = slots_[index];
  return slot.watched != nullptr && slot.generation == token >> 32 ? &slot : nullptr;
}

Poller::Token Poller::add(int fd, std::uint32_t events, Pollable& watched) {
  if (free_ == kNone) {
    if (slots_.size() >= kNone) return 0;
    free_ = static_cast<std::uint32_t>(slots_.size());
    slots_.emplace_back().next_free = kNone;
  }
  const std::uint32_t index = free_;
  Slot& slot = slots_[index];
  epoll_event event{};
  event.events = events;
  event.data.u64 = static_cast<Token>(slot.generation) << 32 | index;
  if (::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, fd, &event) != 0) return 0;
  free_ = slot.next_free;
  slot.watched = &watched;
  return event.data.u64;
}

bool Poller::modify(Token token, int fd, std::uint32_t events) {
  if (find(token) == nullptr) return false;
  epoll_event event{};
  event.events = events;
  event.data.u64 = token;
  return ::epoll_ctl(epoll_fd_, EPOLL_CTL_MOD, fd, &event) == 0;
}

void Poller::remove(Token token, int fd) {
  Slot* slot = find(token);
  if (slot == nullptr) return;
  ::epoll_ctl(epoll_fd_, EPOLL_CTL_DEL, fd, nullptr);
  slot->watched = nullptr;
  if (++slot->generation == 0) slot->generation = 1;  // no token is ever 0
  slot->next_free = free_;
  free_ = static_cast<std::uint32_t>(token);
}

void Poller::begin_wait(Abandoned& waiting) noexcept {
  if (waiting.listed_) return;
  waiting.listed_ = true;
  waiting.previous_ = nullptr;
  waiting.next_ = first_;
  if (first_ != nullptr) first_->previous_ = &waiting;
  first_ = &waiting;
}

void Poller::end_wait(Abandoned& waiting) noexcept {
  if (!waiting.listed_) return;
  waiting.listed_ = false;
  (waiting.previous_ == nullptr ? first_ : waiting.previous_->next_) = waiting.next_;
  if (waiting.next_ != nullptr) waiting.next_->previous_ = waiting.previous_;
}

void Poller::abandon_all() noexcept {
  while (first_ != nullptr) {
    Abandoned& waiting = *first_;
    end_wait(waiting);
    waiting.abandon();
  }
}

}  // namespace mcpgw::detail
