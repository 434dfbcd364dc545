// Opening upstream connections on a loop of their own, and calling over them.
#pragma once

#include <doctest/doctest.h>

#include "support/on_loop.hpp"
#include "support/scripted_mcp.hpp"
#include "upstream/upstream.hpp"

namespace mcpgw::testing {

using namespace detail;
using namespace std::chrono_literals;

class Fixture {
  // Shared with callbacks that may outlive the test's end.
  std::shared_ptr<std::atomic<int>> lost_ = std::make_shared<std::atomic<int>>(0);
  std::shared_ptr<std::mutex> mutex_ = std::make_shared<std::mutex>();
  std::shared_ptr<std::vector<ServerMessage>> messages_ = std::make_shared<std::vector<ServerMessage>>();

 public:
  std::atomic<int>& lost = *lost_;

  Fixture() {
    HttpClientOptions options;
    options.allow_private = true;
    // Only pointed to: connections must not keep the loops from ending that they run on.
    auto made = HttpClient::create(std::shared_ptr<Runtime>(std::shared_ptr<void>(), runtime.get()), options);
    REQUIRE(made);
    client = *made;
  }

  using Opened = Result<std::shared_ptr<Upstream>>;
  Opened open_sse(const std::string& url, HttpHeaders headers, std::chrono::milliseconds limit = 20s) {
    return on_loop<Opened>(*runtime, [&, this] {
      return open_sse_upstream(*Loop::current(), options(url, headers), facts, events(), in(limit));
    });
  }
  Opened open_http(const std::string& url, HttpHeaders headers = {}, std::chrono::milliseconds limit = 20s) {
    return on_loop<Opened>(*runtime, [&, this] {
      return open_http_upstream(*Loop::current(), options(url, headers), facts, events(), in(limit),
                                &refusal);
    });
  }

  using Answer = Result<UpstreamAnswer>;
  std::future<Answer> start(std::shared_ptr<Upstream> upstream, std::string method, std::string params,
                            std::chrono::milliseconds timeout = 20s,
                            std::shared_ptr<CallObserver> observer = nullptr,
                            std::shared_ptr<CallHandle> handle = nullptr) {
    return start_on_loop<Answer>(*runtime, [=] {
      UpstreamCall call;
      call.method = method;
      call.params = params;
      call.timeout = timeout;
      call.wants_progress = observer != nullptr;
      call.observer = observer;
      call.handle = handle;
      return request(upstream, std::move(call));
    });
  }
  Answer call(std::shared_ptr<Upstream> upstream, std::string method, std::string params,
              std::chrono::milliseconds timeout = 20s) {
    return start(std::move(upstream), std::move(method), std::move(params), timeout).get();
  }

  std::vector<ServerMessage> messages() const {
    const std::lock_guard lock(*mutex_);
    return *messages_;
  }

  std::shared_ptr<Runtime> runtime = Runtime::create({.loops = 1, .workers = 2, .hash_workers = 1});
  std::shared_ptr<HttpClient> client;
  std::size_t max_message = 32 * 1024 * 1024;
  ClientFacts facts;
  HttpRefusal refusal;

 private:
  static Task<Answer> request(std::shared_ptr<Upstream> upstream, UpstreamCall call) {
    co_return co_await upstream->request(std::move(call));
  }
  static SteadyTime in(std::chrono::milliseconds limit) { return std::chrono::steady_clock::now() + limit; }
  HttpUpstreamOptions options(const std::string& url, const HttpHeaders& headers) const {
    HttpUpstreamOptions out;
    out.client = client;
    out.url = *parse_url(url);
    out.headers = headers;
    out.max_message = max_message;
    return out;
  }
  UpstreamEvents events() {
    UpstreamEvents out;
    out.on_message = [all = messages_, mutex = mutex_](ServerMessage message) {
      const std::lock_guard lock(*mutex);
      all->push_back(std::move(message));
    };
    out.on_lost = [count = lost_](Error) { ++*count; };
    return out;
  }
};

/// Keeps what comes during a call.
class Recorder final : public CallObserver {
 public:
  void on_server_message(ServerMessage message) override {
    const std::lock_guard lock(mutex_);
    all_.push_back(std::move(message));
  }
  std::vector<ServerMessage> all() const {
    const std::lock_guard lock(mutex_);
    return all_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<ServerMessage> all_;
};

}  // namespace mcpgw::testing

using namespace mcpgw;
using namespace mcpgw::detail;
using namespace mcpgw::testing;
