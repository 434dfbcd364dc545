#include "gateway/tasks.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "gateway/catalog.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kMaxTasks = 20000;
constexpr std::size_t kMaxTasksOfUser = 1000;
constexpr std::size_t kTag = 16;
constexpr std::size_t kMaxId = 8192;

std::string progress_key(const std::string& connection_key, std::string_view token) {
  return connection_key + ' ' + std::string(token);
}

}  // namespace

std::string map_related_task(std::string_view message,
                             const std::function<std::optional<std::string>(const std::string&)>& id) {
  const std::string_view meta = raw::find(message, "_meta");
  const std::string_view related = raw::find(meta, kRelatedTask);
  const auto given = raw::string_value(raw::find(related, "taskId"));
  if (!given) return std::string(message);
  const auto mapped = id(*given);
  if (!mapped) return std::string(message);
  return raw::with_member(
      message, "_meta",
      raw::with_member(meta, kRelatedTask, raw::with_member(related, "taskId", raw::quote(*mapped))));
}

TaskTable::TaskTable(const std::string& secret, const std::vector<std::string>& previous) {
  keys_.push_back(hmac_sha256(secret, "mcpgw:task-id:v1"));
  for (const std::string& old : previous) keys_.push_back(hmac_sha256(old, "mcpgw:task-id:v1"));
}

std::string TaskTable::tag(const std::string& key, const std::string& user_id, const std::string& target_id,
                           std::string_view content) const {
  std::string text = user_id;
  text += '\0';
  text += target_id;
  text += '\0';
  text += content;
  return hmac_sha256(key, text).substr(0, kTag);
}

TaskRef TaskTable::add(const std::string& user_id, const Target& target, const std::string& tool,
                       const std::string& original, const std::shared_ptr<ConnectionListener>& session) {
  std::string content = tool;
  content += '\0';
  content += original;
  const std::string sealed = base64url(tag(keys_.front(), user_id, target.id, content) + content);
  TaskRef task{user_id, target.id, tool, original, export_uri(target.slug, sealed)};
  const std::lock_guard lock(mutex_);
  const auto place = std::make_pair(target.id, original);
  if (const auto it = by_original_.find(place); it != by_original_.end()) drop_locked(it->second);
  if (of_user_[user_id] >= kMaxTasksOfUser) {
    const auto oldest = std::find_if(entries_.begin(), entries_.end(),
                                     [&](const Entry& entry) { return entry.known.task.user_id == user_id; });
    if (oldest != entries_.end()) drop_locked(oldest);
  }
  if (entries_.size() >= kMaxTasks) drop_locked(entries_.begin());
  const auto it = entries_.insert(entries_.end(), Entry{{task, session}, {}, {}});
  by_original_[place] = it;
  by_exported_[task.exported] = it;
  ++of_user_[user_id];
  return task;
}

void TaskTable::drop_locked(Order::iterator it) {
  const TaskRef& task = it->known.task;
  by_original_.erase({task.target_id, task.original});
  by_exported_.erase(task.exported);
  if (!it->progress_key.empty()) by_progress_.erase(it->progress_key);
  if (const auto count = of_user_.find(task.user_id); count != of_user_.end() && --count->second == 0)
    of_user_.erase(count);
  entries_.erase(it);
}

void TaskTable::expect_progress(const TaskRef& task, const std::string& connection_key,
                                const std::string& token, std::string client_token) {
  const std::lock_guard lock(mutex_);
  const auto it = by_exported_.find(task.exported);
  if (it == by_exported_.end()) return;
  it->second->progress_key = progress_key(connection_key, token);
  it->second->client_token = std::move(client_token);
  by_progress_[it->second->progress_key] = it->second;
}

std::optional<std::string> TaskTable::slug_of(std::string_view exported) {
  if (exported.size() > kMaxId) return std::nullopt;
  const auto imported = import_uri(exported);
  return imported ? std::optional(imported->slug) : std::nullopt;
}

std::optional<TaskRef> TaskTable::open(const std::string& user_id, const Target& target,
                                       std::string_view exported) const {
  if (exported.size() > kMaxId) return std::nullopt;
  const auto imported = import_uri(exported);
  if (!imported || imported->slug != target.slug) return std::nullopt;
  const auto plain = from_base64url(imported->uri);
  if (!plain || plain->size() <= kTag) return std::nullopt;
  const std::string content = plain->substr(kTag);
  const auto end = content.find('\0');
  if (end == std::string::npos) return std::nullopt;
  for (const std::string& key : keys_)
    if (equal_constant_time(std::string_view(*plain).substr(0, kTag), tag(key, user_id, target.id, content)))
      return TaskRef{user_id, target.id, content.substr(0, end), content.substr(end + 1),
                     std::string(exported)};
  return std::nullopt;
}

std::optional<TaskTable::Known> TaskTable::find(const std::string& target_id,
                                                const std::string& original) const {
  const std::lock_guard lock(mutex_);
  const auto it = by_original_.find({target_id, original});
  if (it == by_original_.end()) return std::nullopt;
  return it->second->known;
}

std::optional<TaskTable::Progress> TaskTable::progress(const std::string& connection_key,
                                                       const std::string& token) const {
  const std::lock_guard lock(mutex_);
  const auto it = by_progress_.find(progress_key(connection_key, token));
  if (it == by_progress_.end()) return std::nullopt;
  return Progress{it->second->known.session, it->second->client_token};
}

std::optional<std::string> TaskTable::original_of(const std::string& user_id,
                                                  const std::string& exported) const {
  const std::lock_guard lock(mutex_);
  const auto it = by_exported_.find(exported);
  if (it == by_exported_.end() || it->second->known.task.user_id != user_id) return std::nullopt;
  return it->second->known.task.original;
}

}  // namespace mcpgw::detail
