#include "gateway.hpp"

#include "options.hpp"
#include "storage.hpp"
#include "upstream.hpp"

namespace mcpgw::capi {

namespace {

constexpr const char* kNobody = "00000000-0000-0000-0000-000000000000";
constexpr std::chrono::milliseconds kDeadline{120000};

std::string random_text() {
  const auto random = make_system_random();
  return make_uuid(*random) + make_uuid(*random);
}

/// Longer than any comparison that stops at the first difference would tell.
bool same(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace

HostAdministrator::HostAdministrator() : secret_(random_text()) {}

std::optional<Result<Principal>> HostAdministrator::verify(std::string_view token) {
  if (!same(token.substr(0, secret_.size()), secret_)) return std::nullopt;
  const auto user_id = token.substr(secret_.size());
  Principal out;
  out.user_id = user_id.empty() ? kNobody : std::string(user_id);
  out.email = "host";
  out.role = "admin";
  out.scopes = {"mcp", "api"};  // of tokens that it makes for others
  return out;
}

HttpRequest HostAdministrator::request(std::string_view user_id, std::string_view method,
                                       std::string_view target, std::string_view body) const {
  HttpRequest out;
  out.method = method;
  out.target = target;
  out.headers = {{"Authorization", "Bearer " + secret_ + std::string(user_id)}};
  if (!body.empty()) out.headers.emplace_back("Content-Type", "application/json");
  out.body = body;
  out.remote_address = "local";
  return out;
}

mcpgw_status admin(std::string_view user_id, std::string_view method, std::string_view target,
                   std::string_view body, int* out_status, char** out_body, char** out_error,
                   const HostAdministrator& administrator,
                   const std::function<HttpResponse(HttpRequest)>& handle) {
  if (out_status != nullptr) *out_status = 0;
  if (out_body != nullptr) *out_body = nullptr;
  return guard(out_error, [&]() -> Status {
    // The secret must reach nothing but the REST API, which shows it to nobody.
    const auto path = target.substr(0, target.find('?'));
    if (path.substr(0, 5) != "/api/" && path != "/api")
      return invalid("invalid_target", "The path must be one of the REST API: /api/...", "target");
    if (user_id.size() > 128 || user_id.find_first_of("\r\n\t ,\"") != std::string_view::npos)
      return invalid("invalid_user", "This is no user's id", "user_id");
    const HttpResponse response = handle(administrator.request(user_id, method, target, body));
    if (out_body != nullptr) {
      *out_body = copy_out(response.body);
      if (*out_body == nullptr) throw std::bad_alloc();
    }
    if (out_status != nullptr) *out_status = response.status;
    return {};
  });
}

namespace {

/// Log lines in order, one at a time.
LogSink make_log(const mcpgw_log_callbacks& callbacks, LogLevel least) {
  struct Sink {
    explicit Sink(const mcpgw_log_callbacks& given) : host(given) {}
    Host<mcpgw_log_callbacks> host;
    std::mutex one_at_a_time;
  };
  auto sink = std::make_shared<Sink>(callbacks);
  return [sink, least](const LogEvent& event) {
    if (event.level < least || event.level >= LogLevel::off) return;
    try {
      Json fields = Json::object();
      for (const auto& [name, value] : event.fields) fields[name] = value;
      static constexpr const char* kNames[] = {"trace", "debug", "info", "warn", "error"};
      const Json line{{"level", kNames[static_cast<int>(event.level)]},
                      {"module", event.module},
                      {"message", event.message},
                      {"fields", std::move(fields)}};
      const std::string text = detail::dump_json(line);
      const std::lock_guard lock(sink->one_at_a_time);
      sink->host->log(sink->host->user_data, static_cast<mcpgw_log_level>(event.level), text.data(),
                      text.size());
    } catch (...) {  // a line that cannot be told must not end what it tells of
    }
  };
}

Status read_parts(const mcpgw_gateway_parts* given, mcpgw_gateway_parts& parts, mcpgw_gateway& handle,
                  GatewayOptions& options) {
  parts = {};
  if (given == nullptr) return {};
  if (!read_struct(given, offsetof(mcpgw_gateway_parts, storage), parts))
    return invalid("invalid_parts", "parts needs struct_size");
  if (parts.upstream != nullptr) {
    mcpgw_upstream_callbacks callbacks;
    if (!read_struct(parts.upstream, sizeof callbacks, callbacks) || !callbacks.connect || !callbacks.send ||
        !callbacks.close)
      return invalid("invalid_callbacks", "An upstream needs struct_size, connect, send and close");
    options.connect_upstream = make_connect(callbacks, handle.threads);
  }
  if (parts.log != nullptr) {
    mcpgw_log_callbacks callbacks;
    if (!read_struct(parts.log, sizeof callbacks, callbacks) || !callbacks.log)
      return invalid("invalid_callbacks", "A log needs struct_size and log");
    handle.log = make_log(callbacks, handle.config.log.level);
    options.log = handle.log;
  }
  return {};
}

Result<HttpRequest> read_request(const mcpgw_request* given) {
  mcpgw_request in;
  if (!read_struct(given, offsetof(mcpgw_request, remote_address), in) || in.method == nullptr ||
      in.target == nullptr || (in.headers == nullptr && in.header_count != 0))
    return invalid("invalid_request", "A request needs struct_size, method and target");
  HttpRequest out;
  out.method = view(in.method, in.method_size);
  out.target = view(in.target, in.target_size);
  out.headers.reserve(in.header_count);
  for (std::size_t i = 0; i < in.header_count; ++i) {
    const mcpgw_header& header = in.headers[i];
    out.headers.emplace_back(view(header.name, header.name_size), view(header.value, header.value_size));
  }
  out.body = view(in.body, in.body_size);
  out.remote_address = in.remote_address == nullptr
                           ? "127.0.0.1"
                           : std::string(view(in.remote_address, in.remote_address_size));
  out.over_tls = in.over_tls != 0;
  return out;
}

}  // namespace

}  // namespace mcpgw::capi

struct mcpgw_response {
  mcpgw::HttpResponse response;
};

using namespace mcpgw;
using namespace mcpgw::capi;

mcpgw_status mcpgw_gateway_create(const char* options, size_t size, const mcpgw_gateway_parts* parts,
                                  mcpgw_gateway** out, char** out_error) {
  if (out != nullptr) *out = nullptr;
  return guard(out_error, [&]() -> Status {
    if (out == nullptr) return invalid("invalid_argument", "out must not be NULL");
    auto handle = std::make_unique<mcpgw_gateway>();
    handle->config = default_options();
    if (auto done = apply_options(view(options, size), handle->config); !done) return done;
    // Others over the same database must take the tokens that this one signs.
    if (handle->config.database.kind == app::DatabaseConfig::Kind::postgres &&
        handle->config.needs_jwt_secret())
      return invalid("invalid_option", "jwt.secret is missing; with PostgreSQL it must be set", "jwt.secret");
    handle->threads = std::make_shared<CallbackThreads>();
    handle->administrator = std::make_shared<HostAdministrator>();
    GatewayOptions made = handle->config.gateway;
    mcpgw_gateway_parts given;
    if (auto done = read_parts(parts, given, *handle, made); !done) return done;
    auto storage = open_storage(handle->config, given.storage);
    if (!storage) return storage.error();
    made.encryption = handle->config.gateway.encryption;
    made.storage = storage->storage;
    made.audit_sink = storage->audit;
    made.runtime = Runtime::create(handle->config.runtime);
    made.token_verifiers.push_back(handle->administrator);
    auto gateway = Gateway::create(std::move(made));
    if (!gateway) return gateway.error();
    handle->gateway = std::move(*gateway);
    *out = handle.release();
    return {};
  });
}

void mcpgw_gateway_close(mcpgw_gateway* gateway, uint32_t grace_ms) {
  if (gateway == nullptr) return;
  (void)guard(nullptr, [&]() -> Status {
    gateway->gateway->close(std::chrono::milliseconds(grace_ms));
    return {};
  });
}

void mcpgw_gateway_free(mcpgw_gateway* gateway) {
  if (gateway == nullptr) return;
  mcpgw_gateway_close(gateway, 0);
  (void)guard(nullptr, [&]() -> Status {
    gateway->threads->stop();
    return {};
  });
  delete gateway;
}

int mcpgw_response_status(const mcpgw_response* response) {
  return response == nullptr ? 0 : response->response.status;
}

size_t mcpgw_response_header_count(const mcpgw_response* response) {
  return response == nullptr ? 0 : response->response.headers.size();
}

mcpgw_header mcpgw_response_header(const mcpgw_response* response, size_t index) {
  if (response == nullptr || index >= response->response.headers.size()) return {nullptr, 0, nullptr, 0};
  const auto& [name, value] = response->response.headers[index];
  return {name.data(), name.size(), value.data(), value.size()};
}

const char* mcpgw_response_body(const mcpgw_response* response, size_t* size) {
  if (size != nullptr) *size = response == nullptr ? 0 : response->response.body.size();
  return response == nullptr ? "" : response->response.body.c_str();
}

void mcpgw_response_free(mcpgw_response* response) { delete response; }

mcpgw_status mcpgw_gateway_handle(mcpgw_gateway* gateway, const mcpgw_request* request, uint32_t deadline_ms,
                                  mcpgw_response** out, char** out_error) {
  if (out != nullptr) *out = nullptr;
  return guard(out_error, [&]() -> Status {
    if (gateway == nullptr || out == nullptr)
      return invalid("invalid_argument", "gateway and out must not be NULL");
    auto read = read_request(request);
    if (!read) return read.error();
    auto answer = std::make_unique<mcpgw_response>();
    answer->response = gateway->gateway->handle(
        std::move(*read), deadline_ms == 0 ? kDeadline : std::chrono::milliseconds(deadline_ms));
    *out = answer.release();
    return {};
  });
}

mcpgw_status mcpgw_gateway_admin(mcpgw_gateway* gateway, const char* user_id, size_t user_id_size,
                                 const char* method, size_t method_size, const char* target,
                                 size_t target_size, const char* body, size_t body_size, int* out_status,
                                 char** out_body, char** out_error) {
  if (gateway == nullptr) {
    if (out_body != nullptr) *out_body = nullptr;
    return report(invalid("invalid_argument", "gateway must not be NULL"), out_error);
  }
  return admin(view(user_id, user_id_size), view(method, method_size), view(target, target_size),
               view(body, body_size), out_status, out_body, out_error, *gateway->administrator,
               [&](HttpRequest request) { return gateway->gateway->handle(std::move(request), kDeadline); });
}

// --- answers piece by piece
// -------------------------------------------------------------------------------------------

namespace mcpgw::capi {

namespace {

constexpr std::size_t kMaxWaiting = 8 * 1024 * 1024;

/// An answer on its way to the host: its callbacks in order, and whether anybody still wants it.
class Answer final : public std::enable_shared_from_this<Answer> {
 public:
  Answer(const mcpgw_answer_callbacks& callbacks, std::shared_ptr<CallbackThreads> threads)
      : callbacks_(callbacks), strand_(std::make_shared<Strand>(std::move(threads))) {}

  void head(HttpResponse response, bool streamed) {
    auto kept = std::make_shared<HttpResponse>(std::move(response));
    strand_->post([self = shared_from_this(), kept, streamed] {
      std::vector<mcpgw_header> headers;
      headers.reserve(kept->headers.size());
      for (const auto& [name, value] : kept->headers)
        headers.push_back({name.data(), name.size(), value.data(), value.size()});
      const auto& callbacks = self->callbacks_;
      if (callbacks.on_head != nullptr)
        callbacks.on_head(callbacks.user_data, kept->status, headers.data(), headers.size(),
                          streamed ? 1 : 0);
    });
    if (!kept->body.empty()) (void)data(kept->body);
  }

  bool data(std::string bytes) {
    {
      const std::lock_guard lock(mutex_);
      if (ended_) return false;
      if (waiting_ != 0 && waiting_ + bytes.size() > kMaxWaiting) bytes.clear();
      waiting_ += bytes.size();
    }
    if (bytes.empty()) {
      cancel();
      return false;
    }
    strand_->post([self = shared_from_this(), kept = std::move(bytes)] {
      {
        const std::lock_guard lock(self->mutex_);
        self->waiting_ -= kept.size();
        if (self->cut_) return;
      }
      const auto& callbacks = self->callbacks_;
      if (callbacks.on_data != nullptr &&
          callbacks.on_data(callbacks.user_data, kept.data(), kept.size()) != 0)
        self->cancel();
    });
    return true;
  }

  void end(bool complete) {
    {
      const std::lock_guard lock(mutex_);
      if (ended_) return;
      ended_ = true;
      cut_ = !complete;
      on_gone_ = nullptr;
    }
    strand_->post([self = shared_from_this(), complete] {
      const auto& callbacks = self->callbacks_;
      callbacks.on_end(callbacks.user_data, complete ? 1 : 0);
    });
  }

  void cancel() {
    std::function<void()> gone;
    {
      const std::lock_guard lock(mutex_);
      if (ended_) return;
      gone = std::move(on_gone_);
      gone_ = true;
    }
    end(false);
    if (gone) gone();
  }

  void on_disconnect(std::function<void()> callback) {
    {
      const std::lock_guard lock(mutex_);
      if (!gone_) {
        on_gone_ = ended_ ? nullptr : std::move(callback);
        return;
      }
    }
    if (callback) callback();
  }

 private:
  const mcpgw_answer_callbacks callbacks_;
  const std::shared_ptr<Strand> strand_;
  std::mutex mutex_;  // protects the members below
  std::size_t waiting_ = 0;
  bool ended_ = false, cut_ = false, gone_ = false;
  std::function<void()> on_gone_;
};

class AnswerStream final : public ResponseStream {
 public:
  explicit AnswerStream(std::shared_ptr<Answer> answer) : answer_(std::move(answer)) {}
  ~AnswerStream() override { answer_->end(false); }
  bool write(std::string data) override { return data.empty() || answer_->data(std::move(data)); }
  void close() override { answer_->end(true); }

 private:
  const std::shared_ptr<Answer> answer_;
};

class AnswerResponder final : public Responder {
 public:
  explicit AnswerResponder(std::shared_ptr<Answer> answer) : answer_(std::move(answer)) {}
  ~AnswerResponder() override {
    if (answered_.exchange(true)) return;
    HttpResponse none;
    none.status = 500;
    answer_->head(std::move(none), false);
    answer_->end(true);
  }
  void send(HttpResponse response) override {
    if (answered_.exchange(true)) return;
    answer_->head(std::move(response), false);
    answer_->end(true);
  }
  std::shared_ptr<ResponseStream> start(HttpResponse head) override {
    if (answered_.exchange(true)) return std::make_shared<AnswerStream>(answer_);
    answer_->head(std::move(head), true);
    return std::make_shared<AnswerStream>(answer_);
  }
  void on_disconnect(std::function<void()> callback) override { answer_->on_disconnect(std::move(callback)); }

 private:
  const std::shared_ptr<Answer> answer_;
  std::atomic<bool> answered_{false};
};

}  // namespace

}  // namespace mcpgw::capi

struct mcpgw_call {
  std::shared_ptr<mcpgw::capi::Answer> answer;
};

mcpgw_status mcpgw_gateway_handle_async(mcpgw_gateway* gateway, const mcpgw_request* request,
                                        const mcpgw_answer_callbacks* callbacks, mcpgw_call** out,
                                        char** out_error) {
  if (out != nullptr) *out = nullptr;
  return guard(out_error, [&]() -> Status {
    mcpgw_answer_callbacks given;
    if (gateway == nullptr) return invalid("invalid_argument", "gateway must not be NULL");
    if (!read_struct(callbacks, sizeof given, given) || given.on_end == nullptr)
      return invalid("invalid_callbacks", "An answer needs struct_size and on_end");
    auto read = read_request(request);
    if (!read) return read.error();
    auto answer = std::make_shared<Answer>(given, gateway->threads);
    auto responder = std::make_shared<AnswerResponder>(answer);
    if (out != nullptr) *out = new mcpgw_call{answer};
    gateway->gateway->handle_async(std::move(*read), std::move(responder));
    return {};
  });
}

void mcpgw_call_cancel(mcpgw_call* call) {
  if (call == nullptr) return;
  (void)guard(nullptr, [&]() -> Status {
    call->answer->cancel();
    return {};
  });
}

void mcpgw_call_free(mcpgw_call* call) { delete call; }
