#include "observability/activity_hub.hpp"

#include <algorithm>

namespace mcpgw::detail {
namespace {

/// Events that wait for the pump. Beyond it they are counted and left out: dashboards show what happens, the
/// audit log records it.
constexpr std::size_t kMaxQueued = 10000;
/// Messages handed over before others may use the loop.
constexpr std::size_t kSlice = 256;

std::string framed(const char* type, const std::string& data) {
  return std::string(R"({"type":")") + type + R"(","data":)" + data + "}";
}

/// Who sees the same: administrators, and each other identity.
std::string view_of(const Principal& principal) {
  if (principal.is_admin()) return {};
  std::string out = principal.user_id + '\n' + principal.role;
  for (const std::string& group : principal.groups) out += '\n' + group;
  return out;
}

}  // namespace

std::uint64_t ActivityHub::reserve(const Principal& principal, std::size_t max) {
  const std::lock_guard lock(mutex_);
  if (closed_) return 0;
  const auto own = std::count_if(dashboards_.begin(), dashboards_.end(), [&](const auto& entry) {
    return entry.second.principal->user_id == principal.user_id;
  });
  if (static_cast<std::size_t>(own) >= max) return 0;
  const std::uint64_t id = next_id_++;
  dashboards_[id].principal = std::make_shared<const Principal>(principal);
  watching_.store(dashboards_.size(), std::memory_order_relaxed);
  return id;
}

void ActivityHub::attach(std::uint64_t id, std::shared_ptr<WebSocket> socket, std::string first) {
  {
    const std::lock_guard lock(mutex_);
    const auto it = dashboards_.find(id);
    if (it != dashboards_.end()) {
      it->second.socket = std::move(socket);
      it->second.since = next_event_;
      Queued queued;
      queued.only = id;
      queued.event.type = "metrics";
      queued.event.data = std::move(first);
      push_locked(std::move(queued));
      return;
    }
  }
  socket->close(1001);  // over before it began, or the hub was closed meanwhile
}

void ActivityHub::remove(std::uint64_t id) {
  std::shared_ptr<WebSocket> socket;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  const auto it = dashboards_.find(id);
  if (it == dashboards_.end()) return;
  socket = std::move(it->second.socket);
  dashboards_.erase(it);
  watching_.store(dashboards_.size(), std::memory_order_relaxed);
}

void ActivityHub::publish(Event event) {
  if (!watched()) return;
  const std::lock_guard lock(mutex_);
  if (queue_.size() >= kMaxQueued) {
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  Queued queued;
  queued.event = std::move(event);
  push_locked(std::move(queued));
}

void ActivityHub::push_locked(Queued queued) {
  queued.number = next_event_++;
  queue_.push_back(std::move(queued));
  if (pumping_) return;
  pumping_ = true;
  loop_.post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->loop_.spawn(run_pump(self));
  });
}

Task<void> ActivityHub::run_pump(std::shared_ptr<ActivityHub> self) { co_await self->pump(); }

bool ActivityHub::concerns(const Event& event, const Principal& principal) const {
  if (principal.is_admin()) return true;
  if (!event.user_id.empty()) return event.user_id == principal.user_id;
  return !event.target_id.empty() && reaches_(principal, event.target_id);
}

std::vector<std::pair<std::uint64_t, ActivityHub::Dashboard>> ActivityHub::attached() const {
  std::vector<std::pair<std::uint64_t, Dashboard>> out;
  const std::lock_guard lock(mutex_);
  out.reserve(dashboards_.size());
  for (const auto& [id, dashboard] : dashboards_)
    if (dashboard.socket) out.emplace_back(id, dashboard);
  return out;
}

Task<void> ActivityHub::pump() {
  std::size_t sent = 0;
  for (;;) {
    std::deque<Queued> batch;
    {
      const std::lock_guard lock(mutex_);
      batch.swap(queue_);
      if (batch.empty()) {
        pumping_ = false;
        co_return;
      }
    }
    const auto dashboards = attached();
    for (const Queued& one : batch) {
      const std::string text = framed(one.event.type, one.event.data);
      const std::string others =
          one.event.for_users.empty() ? std::string() : framed(one.event.type, one.event.for_users);
      for (const auto& [id, dashboard] : dashboards) {
        if (one.only != 0 ? one.only != id
                          : one.number < dashboard.since || !concerns(one.event, *dashboard.principal))
          continue;
        const bool plain = one.only == 0 && !others.empty() && !dashboard.principal->is_admin();
        dashboard.socket->send_text(plain ? others : text);
        if (++sent % kSlice == 0) co_await asio::post(loop_.executor(), use_task);
      }
    }
  }
}

void ActivityHub::broadcast(const std::function<std::string(const Principal&)>& text) {
  std::map<std::string, std::string> texts;
  for (const auto& [id, dashboard] : attached()) {
    const std::string view = view_of(*dashboard.principal);
    auto it = texts.find(view);
    if (it == texts.end()) it = texts.emplace(view, framed("metrics", text(*dashboard.principal))).first;
    dashboard.socket->send_text(it->second);
  }
}

void ActivityHub::check(const std::function<bool(const Principal&)>& valid) {
  if (!watched()) return;
  for (const auto& [id, dashboard] : attached()) {
    if (valid(*dashboard.principal)) continue;
    dashboard.socket->close(1008, "The token is no longer valid for this");
    remove(id);
  }
}

void ActivityHub::close_all() {
  std::map<std::uint64_t, Dashboard> dashboards;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    dashboards.swap(dashboards_);
    queue_.clear();
    watching_.store(0, std::memory_order_relaxed);
  }
  for (const auto& [id, dashboard] : dashboards)
    if (dashboard.socket) dashboard.socket->close(1001, "The gateway is closing");
}

std::size_t ActivityHub::count_of(const std::string& user_id) const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(
      std::count_if(dashboards_.begin(), dashboards_.end(),
                    [&](const auto& entry) { return entry.second.principal->user_id == user_id; }));
}

}  // namespace mcpgw::detail
