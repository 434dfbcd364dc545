// Tasks of revision 2025-11-25 (basic/utilities/tasks): the ids that clients see, and who may use them.
//
// A server that several users share cannot tell them apart, so the gateway binds each task to the user whose
// call made it: towards clients its id is "mcpgw+<slug>:" and a sealed text that holds the server's own id
// and the tool, and is good for that user and target only. It needs no memory, so that a task outlives a
// restart. What runs now is remembered besides, for messages of servers about it and for lists.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/model.hpp"
#include "runtime/loop.hpp"

namespace mcpgw::detail {

class ConnectionListener;

/// The _meta member that ties a message to its task.
inline constexpr std::string_view kRelatedTask = "io.modelcontextprotocol/related-task";

struct TaskRef {
  std::string user_id;
  std::string target_id;
  std::string tool;      ///< original name: a task is judged as the tool that it runs
  std::string original;  ///< id as the server knows it
  std::string exported;  ///< id as the client knows it
};

/// `message` (params or a result) with the task id of its related-task metadata replaced by what `id` gives
/// for it; unchanged when there is none or `id` knows none.
std::string map_related_task(std::string_view message,
                             const std::function<std::optional<std::string>(const std::string&)>& id);

/// Safe from any thread.
class TaskTable {
 public:
  /// `secret` seals; all open.
  TaskTable(const std::string& secret, const std::vector<std::string>& previous);

  /// A server made a task for a call of this session. Returns it as the client shall see it.
  TaskRef add(const std::string& user_id, const Target& target, const std::string& tool,
              const std::string& original, const std::shared_ptr<ConnectionListener>& session);
  /// Progress with this token of a connection goes to the client of a task under its own token.
  void expect_progress(const TaskRef& task, const std::string& connection_key, const std::string& token,
                       std::string client_token);

  /// The slug of an exported id; nullopt when it is none.
  static std::optional<std::string> slug_of(std::string_view exported);
  /// The task behind an exported id of this user at this target; nullopt for every other text.
  std::optional<TaskRef> open(const std::string& user_id, const Target& target,
                              std::string_view exported) const;

  struct Known {
    TaskRef task;
    std::weak_ptr<ConnectionListener> session;  ///< that made it
  };
  /// A remembered task by the server's id.
  std::optional<Known> find(const std::string& target_id, const std::string& original) const;
  struct Progress {
    std::weak_ptr<ConnectionListener> session;
    std::string client_token;
  };
  std::optional<Progress> progress(const std::string& connection_key, const std::string& token) const;
  /// What servers shall see of an exported id that a client names; nullopt when it is not one of this user's.
  std::optional<std::string> original_of(const std::string& user_id, const std::string& exported) const;

 private:
  struct Entry {
    Known known;
    std::string progress_key;
    std::string client_token;
  };
  using Order = std::list<Entry>;

  std::string tag(const std::string& key, const std::string& user_id, const std::string& target_id,
                  std::string_view content) const;
  void drop_locked(Order::iterator it);

  std::vector<std::string> keys_;                                               ///< the sealing one first
  mutable std::mutex mutex_;                                                    // guards what follows
  Order entries_;                                                               ///< oldest first
  std::map<std::pair<std::string, std::string>, Order::iterator> by_original_;  // by target id and id
  std::map<std::string, Order::iterator> by_exported_;
  std::map<std::string, Order::iterator> by_progress_;
  std::map<std::string, std::size_t> of_user_;
};

}  // namespace mcpgw::detail
