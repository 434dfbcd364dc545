#include "kubernetes/kube_client.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "base/text.hpp"
#include "kubernetes/kube_objects.hpp"
#include "runtime/line_splitter.hpp"

namespace mcpgw::detail {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

/// Service account tokens are replaced long before they expire; the file tells.
constexpr auto kReadAgain = seconds(60);
constexpr auto kAttemptTimeout = seconds(15);
constexpr auto kFirstRetry = milliseconds(200);
constexpr auto kMaxRetry = milliseconds(5000);
constexpr auto kMaxRetryAfter = seconds(30);
constexpr auto kRefusedRetry = seconds(2);  // a new token may be a moment away
constexpr std::size_t kMaxBody = 32 * 1024 * 1024;
constexpr std::size_t kMaxObject = 4 * 1024 * 1024;
constexpr std::size_t kMaxObjects = 20000;
constexpr std::size_t kMaxFile = 1024 * 1024;
constexpr std::size_t kDepth = 64;
constexpr int kWatchSeconds = 240;
constexpr auto kStopLook = milliseconds(250);

Error unreachable(std::string message) {
  return {ErrorCode::unavailable, "kubernetes_api", std::move(message)};
}

Result<std::string> read_file(const std::string& path, const char* what) {
  std::ifstream file(path, std::ios::binary);
  std::string text;
  text.resize(kMaxFile);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  if (text.empty())
    return unreachable(
        std::string("There is no ") + what +
        " of a service account here: the gateway does not run in a pod, or its token is switched off");
  return text;
}

milliseconds retry_after(const HttpHeaders& headers) {
  const std::string* text = find_header(headers, "Retry-After");
  int value = 0;
  if (text == nullptr) return milliseconds(0);
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || value < 0) return milliseconds(0);
  return std::min<milliseconds>(seconds(std::min(value, 3600)), kMaxRetryAfter);
}

bool may_pass(int status) { return status == 429 || status == 408 || status >= 500; }

/// What the API said, in its own words: they name the verb, the resource and the account.
Error api_error(int status, const std::string& body) {
  const auto parsed = parse_json(body, kDepth);
  std::string message = parsed ? text_at(*parsed, {"message"}) : std::string();
  message = "The Kubernetes API answered " + std::to_string(status) +
            (message.empty() ? std::string() : ": " + for_people(message));
  ErrorCode code = ErrorCode::internal;
  switch (status) {
    case 400:
    case 415:
    case 422:
      code = ErrorCode::invalid_argument;
      break;
    case 401:
      code = ErrorCode::unauthenticated;
      break;
    case 403:
      code = ErrorCode::permission_denied;
      break;
    case 404:
      code = ErrorCode::not_found;
      break;
    case 409:
      code = ErrorCode::conflict;
      break;
    case 410:
      code = ErrorCode::precondition_failed;
      break;
    default:
      if (may_pass(status)) code = ErrorCode::unavailable;
  }
  return {code, "kubernetes_api", std::move(message)};
}

std::string query_of(const std::string& selector) {
  return selector.empty() ? std::string() : "labelSelector=" + percent_encode(selector) + "&";
}

}  // namespace

Result<KubernetesAccess> in_cluster_access(const std::string& directory) {
  const char* host = std::getenv("KUBERNETES_SERVICE_HOST");
  const char* port = std::getenv("KUBERNETES_SERVICE_PORT");
  if (host == nullptr || port == nullptr || *host == '\0')
    return unreachable(
        "The gateway does not run in a Kubernetes cluster (KUBERNETES_SERVICE_HOST is not set): set "
        "kubernetes.kubeconfig");
  auto token = read_file(directory + "/token", "token");
  if (!token) return token.error();
  auto ca = read_file(directory + "/ca.crt", "certificate authority");
  if (!ca) return ca.error();
  KubernetesAccess out;
  const std::string name = host;
  out.server = "https://" + (name.find(':') == std::string::npos ? name : "[" + name + "]") + ":" + port;
  out.ca = std::move(*ca);
  out.token = std::string(trim(*token));
  return out;
}

KubeClient::KubeClient(std::shared_ptr<Runtime> runtime, ReadKubernetesAccess access, LogSink log)
    : runtime_(std::move(runtime)),
      access_(access ? std::move(access) : [] { return in_cluster_access(); }),
      log_(std::move(log)) {}

Result<std::shared_ptr<const KubeClient::Link>> KubeClient::read_link(
    const std::shared_ptr<const Link>& old) {
  auto access = access_();
  if (!access) return access.error();
  if (access->token.find_first_of("\r\n") != std::string::npos)
    return unreachable("The token for the Kubernetes API is malformed");
  const auto base = parse_url(access->server);
  if (!base) return unreachable("The address of the Kubernetes API is not an http or https URL");
  auto next = std::make_shared<Link>();
  next->base = *base;
  while (!next->base.target.empty() && next->base.target.back() == '/') next->base.target.pop_back();
  if (next->base.target.find('?') != std::string::npos)
    return unreachable("The address of the Kubernetes API must not have a query");
  next->read_at = steady_clock::now();
  const bool same = old && old->access.server == access->server && old->access.ca == access->ca &&
                    old->access.verify == access->verify && old->access.client_cert == access->client_cert &&
                    old->access.client_key == access->client_key;
  next->access = std::move(*access);
  if (same) {
    next->http = old->http;
    return std::shared_ptr<const Link>(std::move(next));
  }
  HttpClientOptions options;
  options.allow_private = true;  // the operator named it; clusters live at private addresses
  options.ca = next->access.ca;
  options.verify = next->access.verify;
  options.client_cert = next->access.client_cert;
  options.client_key = next->access.client_key;
  auto http = HttpClient::create(runtime_, options);
  if (!http)
    return unreachable("The certificates for the Kubernetes API cannot be used: " + http.error().message);
  next->http = *http;
  return std::shared_ptr<const Link>(std::move(next));
}

Task<Result<std::shared_ptr<const KubeClient::Link>>> KubeClient::link(const Link* refused) {
  std::shared_ptr<const Link> old;
  {
    const std::lock_guard lock(mutex_);
    old = link_;
  }
  if (old && old.get() != refused && steady_clock::now() - old->read_at < kReadAgain) co_return old;
  const auto self = shared_from_this();
  auto read = [self, old] { return self->read_link(old); };
  auto result = co_await run_blocking(runtime_->impl().workers(), read);
  if (!result) co_return unreachable("Too much is waiting for storage and files");
  if (!*result) {
    // A token that cannot be read this moment is no reason to drop one that works.
    if (old && old.get() != refused) co_return old;
    co_return result->error();
  }
  const std::lock_guard lock(mutex_);
  link_ = **result;
  co_return link_;
}

ClientRequest KubeClient::request_of(const Link& link, const KubeRequest& request) {
  ClientRequest out;
  out.method = request.method;
  out.url = link.base;
  out.url.target += request.path;
  out.headers.emplace_back("Accept", "application/json");
  out.headers.emplace_back("User-Agent", "mcpgw");
  if (!link.access.token.empty()) out.headers.emplace_back("Authorization", "Bearer " + link.access.token);
  if (!request.content_type.empty()) out.headers.emplace_back("Content-Type", request.content_type);
  out.body = request.body;
  return out;
}

Task<Result<KubeClient::Attempt>> KubeClient::attempt(const Link& link, const KubeRequest& request,
                                                      SteadyTime deadline) {
  ClientRequest message = request_of(link, request);
  message.deadline = std::min(deadline, steady_clock::now() + kAttemptTimeout);
  std::string detail;
  auto exchange = co_await link.http->send(std::move(message), nullptr, &detail);
  if (!exchange)
    co_return unreachable("The Kubernetes API cannot be reached" +
                          (detail.empty() ? "" : ": " + for_people(detail)));
  Attempt out;
  out.status = (*exchange)->status;
  out.retry_after = retry_after((*exchange)->headers);
  auto body = co_await (*exchange)->read_all(kMaxBody);
  if (!body) {
    if (body.error().code == ErrorCode::resource_exhausted)
      co_return Error(ErrorCode::resource_exhausted, "kubernetes_api",
                      "The Kubernetes API's answer is too large");
    co_return unreachable("The Kubernetes API ended its answer early");
  }
  out.body = std::move(*body);
  co_return out;
}

Task<Result<Json>> KubeClient::call(KubeRequest request, SteadyTime deadline) {
  const auto kept = shared_from_this();
  std::shared_ptr<const Link> used;
  Error last = unreachable("The Kubernetes API did not answer in time");
  bool refused = false;
  SteadyTime refused_until{};
  for (int tries = 0;; ++tries) {
    auto current = co_await link(refused ? used.get() : nullptr);
    milliseconds wait = std::min<milliseconds>(kFirstRetry * (1 << std::min(tries, 5)), kMaxRetry);
    if (!current) {
      last = current.error();
    } else {
      const bool same_token = refused && used && used->access.token == (*current)->access.token;
      used = *current;
      refused = false;
      auto answer = co_await attempt(*used, request, deadline);
      if (!answer) {
        if (answer.error().code != ErrorCode::unavailable) co_return answer.error();
        last = answer.error();
      } else if (answer->status >= 200 && answer->status < 300) {
        auto object = parse_json(answer->body, kDepth);
        if (object && object->is_object()) co_return std::move(*object);
        last = unreachable("The Kubernetes API's answer is not a JSON object");
      } else if (answer->status == 401) {
        // The token has expired: the file may hold a new one now, or in a moment.
        last = api_error(401, answer->body);
        refused = true;
        if (refused_until == SteadyTime{}) refused_until = steady_clock::now() + kRefusedRetry;
        if (same_token && steady_clock::now() >= refused_until) co_return last;
        if (!same_token) wait = milliseconds(0);
      } else if (may_pass(answer->status)) {
        last = api_error(answer->status, answer->body);
        wait = std::max(wait, answer->retry_after);
      } else {
        co_return api_error(answer->status, answer->body);
      }
    }
    if (steady_clock::now() + wait >= deadline) co_return last;
    if (wait.count() > 0) co_await sleep_for(wait);
  }
}

void WatchStop::stop() {
  stopped_.store(true, std::memory_order_release);
  std::shared_ptr<CancelSource> open;
  {
    const std::lock_guard lock(mutex_);
    open = open_;
  }
  if (open) open->cancel();
}

/// The collection's version; the objects go to `all`.
Task<Result<std::string>> KubeClient::list(const std::string& path, const std::string& selector,
                                           std::vector<Json>& all) {
  all.clear();
  std::string next;
  for (;;) {
    KubeRequest request;
    request.path = path + "?" + query_of(selector) + "limit=500";
    if (!next.empty()) request.path += "&continue=" + percent_encode(next);
    auto page = co_await call(std::move(request), steady_clock::now() + kAttemptTimeout);
    if (!page) co_return page.error();
    const Json& items = at_path(*page, {"items"});
    if (items.is_array())
      for (const Json& item : items) all.push_back(item);
    if (all.size() > kMaxObjects)
      co_return Error(ErrorCode::resource_exhausted, "kubernetes_api",
                      "The namespace holds too many objects");
    next = text_at(*page, {"metadata", "continue"});
    if (next.empty()) co_return text_at(*page, {"metadata", "resourceVersion"});
  }
}

/// One watch request until its end. precondition_failed: `version` is too old, all is to be listed anew.
/// `not_before` is the wait that the server asks for.
Task<Status> KubeClient::follow(const std::string& path, const std::string& selector, std::string& version,
                                const WatchHandler& handler, WatchStop& stop, milliseconds& not_before) {
  auto current = co_await link(nullptr);
  if (!current) co_return current.error();
  KubeRequest request;
  request.path = path + "?" + query_of(selector) +
                 "watch=true&allowWatchBookmarks=true&timeoutSeconds=" + std::to_string(kWatchSeconds) +
                 "&resourceVersion=" + percent_encode(version);
  ClientRequest message = request_of(**current, request);
  message.deadline = steady_clock::now() + seconds(kWatchSeconds + 30);
  const auto cancel = std::make_shared<CancelSource>();
  {
    const std::lock_guard lock(stop.mutex_);
    if (stop.stopped()) co_return Status();
    stop.open_ = cancel;
  }
  std::string detail;
  auto sent = co_await (*current)->http->send(std::move(message), cancel.get(), &detail);
  if (!sent) co_return unreachable("The Kubernetes API cannot be reached: " + for_people(detail));
  const std::unique_ptr<HttpExchange> exchange = std::move(*sent);
  if (exchange->status != 200) {
    if (exchange->status == 401) {
      auto again = co_await link(current->get());
      if (!again) co_return again.error();
    }
    not_before = retry_after(exchange->headers);
    auto body = co_await exchange->read_all(64 * 1024);
    co_return api_error(exchange->status, body ? *body : std::string());
  }
  LineSplitter lines(kMaxObject);
  Status fault;
  const auto on_line = [&](std::string line) {
    if (!fault) return;
    const auto event = parse_json(line, kDepth);
    const std::string type = event ? text_at(*event, {"type"}) : std::string();
    if (type.empty()) {
      fault = unreachable("A watch of the Kubernetes API sent something else than events");
      return;
    }
    const Json& object = at_path(*event, {"object"});
    if (type == "ERROR") {
      const Json& code = at_path(object, {"code"});
      fault = api_error(code.is_number_integer() ? code.get<int>() : 500, dump_json(object));
      return;
    }
    if (const std::string seen = text_at(object, {"metadata", "resourceVersion"}); !seen.empty())
      version = seen;
    if (type == "ADDED") handler.on_event({KubeEvent::Type::added, object});
    if (type == "MODIFIED") handler.on_event({KubeEvent::Type::modified, object});
    if (type == "DELETED") handler.on_event({KubeEvent::Type::deleted, object});
  };
  // What is missing from a watch would be missing for good: all is listed anew.
  const auto on_oversize = [&fault](std::string, std::string, std::size_t) {
    fault = Error(ErrorCode::precondition_failed, "kubernetes_api", "An object is too large");
  };
  for (;;) {
    auto piece = co_await exchange->read_some();
    if (!piece) co_return unreachable("A watch of the Kubernetes API broke off");
    if (piece->empty()) co_return fault;
    lines.feed(*piece, on_line, on_oversize);
    if (!fault) co_return fault;
    if (stop.stopped()) co_return Status();
  }
}

Task<void> KubeClient::watch(std::shared_ptr<KubeClient> self, std::string path, std::string selector,
                             WatchHandler handler, std::shared_ptr<WatchStop> stop) {
  std::string version;
  int failures = 0;
  bool works = true;
  const auto ended = [&] { return stop->stopped() || (handler.stopped && handler.stopped()); };
  while (!ended()) {
    Status outcome;
    milliseconds not_before{0};
    const auto began = steady_clock::now();
    if (version.empty()) {
      std::vector<Json> all;
      auto listed = co_await self->list(path, selector, all);
      if (ended()) co_return;
      if (listed) {
        version = *listed;
        handler.on_list(std::move(all), began);
      } else {
        outcome = listed.error();
      }
    }
    if (outcome) {
      if (!std::exchange(works, true) && handler.on_health) handler.on_health(true, {});
      outcome = co_await self->follow(path, selector, version, handler, *stop, not_before);
      if (ended()) co_return;
    }
    const bool lived = steady_clock::now() - began > seconds(2);
    if (lived) failures = 0;
    if (!outcome) {
      // Too old, or never valid: from the beginning.
      if (outcome.error().code != ErrorCode::unavailable) version.clear();
      if (std::exchange(works, false) && !lived && outcome.error().code != ErrorCode::precondition_failed &&
          handler.on_health)
        handler.on_health(false, outcome.error().message);
    }
    // A server that ends watches at once is not asked in a tight loop.
    const milliseconds wait =
        outcome && lived ? milliseconds(0)
                         : std::min<milliseconds>(kFirstRetry * (1 << std::min(failures++, 5)), kMaxRetry);
    const auto until = steady_clock::now() + std::max(wait, not_before);
    while (!ended() && steady_clock::now() < until)
      co_await sleep_for(std::min<steady_clock::duration>(kStopLook, until - steady_clock::now()));
  }
}

}  // namespace mcpgw::detail
