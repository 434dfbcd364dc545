// KubeClient: requests to the Kubernetes API as one service account sends them, with tokens that are replaced
// while we run, and watches.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "json/json.hpp"
#include "mcpgw/gateway.hpp"
#include "runtime/http_client.hpp"

namespace mcpgw::detail {

/// What a pod finds in its file system and environment. `directory` holds token and ca.crt.
Result<KubernetesAccess> in_cluster_access(
    const std::string& directory = "/var/run/secrets/kubernetes.io/serviceaccount");

struct KubeRequest {
  std::string method = "GET";
  std::string path;  ///< "/apis/apps/v1/namespaces/mcp/deployments?limit=500"
  std::string body;
  std::string content_type;
};

struct KubeEvent {
  enum class Type { added, modified, deleted };
  Type type;
  Json object;
};

/// Safe from any thread; tasks are awaited on a loop of the runtime.
class KubeClient : public std::enable_shared_from_this<KubeClient> {
 public:
  KubeClient(std::shared_ptr<Runtime> runtime, ReadKubernetesAccess access, LogSink log);

  /// The answer's object. What may pass (429 with its Retry-After, 5xx, a broken connection, an expired
  /// token) is tried again until `deadline`; all requests are such that twice is like once. Errors:
  /// not_found, conflict, permission_denied, invalid_argument (as the API says; the message holds its text),
  /// resource_exhausted (answer too large), unavailable; reason "kubernetes_api".
  Task<Result<Json>> call(KubeRequest request, SteadyTime deadline);

  /// All objects of a collection, page by page, and then what becomes of them until `stop` is true.
  struct WatchHandler {
    /// Anew whenever the thread was lost. `asked_at`: what was made since may be missing; events tell of it.
    std::function<void(std::vector<Json> all, SteadyTime asked_at)> on_list;
    std::function<void(KubeEvent event)> on_event;
    std::function<void(bool works, const std::string& why)> on_health;  ///< may be null
    std::function<bool()> stopped;  ///< asked at least each half second while nothing is open
  };
  /// `selector` is a label selector. Ends when stopped() says so, or by `cancel`.
  static Task<void> watch(std::shared_ptr<KubeClient> self, std::string path, std::string selector,
                          WatchHandler handler, std::shared_ptr<class WatchStop> stop);

 private:
  /// The access of a moment and the HTTP client made of it.
  struct Link {
    KubernetesAccess access;
    Url base;
    std::shared_ptr<HttpClient> http;
    SteadyTime read_at{};
  };
  struct Attempt {
    int status = 0;
    std::string body;
    std::chrono::milliseconds retry_after{0};
  };

  /// The current one, read again when it has aged or is `refused`.
  Task<Result<std::shared_ptr<const Link>>> link(const Link* refused);
  Result<std::shared_ptr<const Link>> read_link(const std::shared_ptr<const Link>& old);
  static ClientRequest request_of(const Link& link, const KubeRequest& request);
  Task<Result<Attempt>> attempt(const Link& link, const KubeRequest& request, SteadyTime deadline);
  Task<Result<std::string>> list(const std::string& path, const std::string& selector,
                                 std::vector<Json>& all);
  Task<Status> follow(const std::string& path, const std::string& selector, std::string& version,
                      const WatchHandler& handler, WatchStop& stop, std::chrono::milliseconds& not_before);

  const std::shared_ptr<Runtime> runtime_;
  const ReadKubernetesAccess access_;
  const LogSink log_;
  std::mutex mutex_;  // guards what follows
  std::shared_ptr<const Link> link_;
};

/// Ends a watch from any thread.
class WatchStop {
 public:
  void stop();
  bool stopped() const noexcept { return stopped_.load(std::memory_order_acquire); }

 private:
  friend class KubeClient;
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;  // guards what follows
  std::shared_ptr<CancelSource> open_;
};

}  // namespace mcpgw::detail
