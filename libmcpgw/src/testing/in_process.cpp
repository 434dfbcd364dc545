#include <map>

#include "json/raw.hpp"
#include "mcpgw/testing.hpp"
#include "protocol/bridge.hpp"
#include "protocol/message.hpp"
#include "runtime/http_client.hpp"
#include "testing/transport.hpp"

namespace mcpgw::testing {

using namespace detail;

struct InProcessGateway::Impl {
  std::shared_ptr<Gateway> gateway;
  std::unique_ptr<Transport> transport;
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<FakeUpstream>> upstreams;  // by target name
  std::map<std::string, std::unique_ptr<McpClient>> clients;
};

InProcessGateway::InProcessGateway(InProcessOptions options) : impl_(std::make_unique<Impl>()) {
  if (!options.gateway.storage) options.gateway.storage = make_memory_storage();
  options.gateway.stdio.enabled = true;
  if (!options.gateway.connect_upstream) {
    options.gateway.connect_upstream =
        [this](const UpstreamParameters& parameters) -> Result<std::shared_ptr<MessageChannel>> {
      std::shared_ptr<FakeUpstream> fake;
      {
        const std::lock_guard lock(impl_->mutex);
        const auto it = impl_->upstreams.find(parameters.target.name);
        if (it != impl_->upstreams.end()) fake = it->second;
      }
      if (!fake) return std::shared_ptr<MessageChannel>();
      return fake->connect(parameters);
    };
  }
  auto gateway = Gateway::create(std::move(options.gateway));
  if (!gateway) throw std::runtime_error("the gateway cannot be made: " + gateway.error().message);
  impl_->gateway = *gateway;
  impl_->transport =
      options.over_socket ? make_socket_transport(impl_->gateway) : make_direct_transport(impl_->gateway);
}

InProcessGateway::~InProcessGateway() {
  impl_->transport.reset();
  impl_->gateway->close(std::chrono::milliseconds(1000));
}

Gateway& InProcessGateway::gateway() { return *impl_->gateway; }

std::string InProcessGateway::add_upstream(const std::string& name, std::shared_ptr<FakeUpstream> fake) {
  Target target;
  target.name = name;
  target.transport_type = TransportType::stdio;
  target.command = "in-process";
  return add_upstream(std::move(target), std::move(fake));
}

std::string InProcessGateway::add_upstream(Target target, std::shared_ptr<FakeUpstream> fake) {
  if (fake->era() == FakeUpstream::Era::modern) target.protocol_era = EraSetting::modern;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->upstreams[target.name] = std::move(fake);
  }
  auto made = gateway().repository()->create_target(std::move(target));
  if (!made) throw std::runtime_error("the target cannot be made: " + made.error().message);
  return made->id;
}

McpClient& InProcessGateway::as(const std::string& name) {
  const std::lock_guard lock(impl_->mutex);
  auto& slot = impl_->clients[name];
  if (slot) return *slot;
  User user;
  user.email = name + "@example.test";
  user.role = name == "admin" ? "admin" : "user";
  auto made = gateway().repository()->create_user(std::move(user));
  if (!made) throw std::runtime_error("the user cannot be made: " + made.error().message);
  auto token =
      gateway().authenticator()->mint(made->id, "test", TokenKind::api, {"mcp", "api"}, std::nullopt);
  if (!token) throw std::runtime_error("the token cannot be made: " + token.error().message);
  slot = std::make_unique<McpClient>();
  slot->gateway_ = this;
  slot->user_id_ = made->id;
  slot->token_ = token->token;
  return *slot;
}

std::string InProcessGateway::allow(const std::string& user, const std::string& target_name,
                                    const std::string& pattern) {
  Policy policy;
  policy.name = user + " may use " + target_name;
  policy.effect = Effect::allow;
  policy.resource_pattern = pattern;
  if (!target_name.empty()) {
    const auto target = gateway().repository()->target_by_name(target_name);
    if (!target) throw std::runtime_error("there is no target " + target_name);
    policy.target_id = target->id;
  }
  Subject subject;
  subject.type = SubjectType::user;
  subject.value = as(user).user_id();
  policy.subjects.push_back(std::move(subject));
  auto made = gateway().repository()->create_policy(std::move(policy));
  if (!made) throw std::runtime_error("the policy cannot be made: " + made.error().message);
  return made->id;
}

int InProcessGateway::port() const { return impl_->transport->port(); }

HttpResponse InProcessGateway::send(HttpRequest request) {
  return impl_->transport->send(std::move(request));
}

std::vector<AuditRecord> InProcessGateway::audit_rows() {
  // Rows are written behind the answers; a moment without a new one means that all are there.
  AuditQuery query;
  query.limit = 10000;
  std::size_t last = 0;
  for (int quiet = 0, round = 0; quiet < 3 && round < 200; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    const auto page = gateway().audit_sink()->query(query);
    const std::size_t count = page ? page->records.size() : 0;
    quiet = count == last ? quiet + 1 : 0;
    last = count;
  }
  auto page = gateway().audit_sink()->query(query);
  if (!page) return {};
  return {page->records.rbegin(), page->records.rend()};
}

// --- McpClient ---------------------------------------------------------------------------------------

McpReply McpClient::raw(const std::string& body, const HttpHeaders& headers) {
  HttpRequest request;
  request.method = "POST";
  request.target = "/mcp";
  request.headers = {{"Authorization", "Bearer " + token_},
                     {"Content-Type", "application/json"},
                     {"Accept", "application/json, text/event-stream"}};
  for (const auto& header : headers) request.headers.push_back(header);
  request.body = body;
  request.remote_address = "127.0.0.1";
  const HttpResponse response = gateway_->send(std::move(request));
  McpReply out;
  out.http_status = response.status;
  if (const std::string* id = response.header("Mcp-Session-Id")) out.session_id = *id;
  const std::string* type = response.header("Content-Type");
  if (type == nullptr || type->find("text/event-stream") == std::string::npos) {
    out.body = response.body;
    return out;
  }
  SseDecoder decoder(64 * 1024 * 1024);
  std::vector<SseDecoder::Event> events;
  decoder.feed(response.body, events);
  for (SseDecoder::Event& event : events) {
    if (event.data.empty()) continue;
    if (!raw::find(event.data, "method").empty())
      out.notifications.push_back(std::move(event.data));
    else
      out.body = std::move(event.data);
  }
  return out;
}

McpReply McpClient::initialize(const std::string& version, const std::string& capabilities) {
  session_id_.clear();
  McpReply reply = raw(make_request(std::to_string(next_id_++), "initialize",
                                    R"({"protocolVersion":)" + raw::quote(version) + R"(,"capabilities":)" +
                                        capabilities + R"(,"clientInfo":{"name":"test","version":"1"}})"));
  if (!reply.ok()) return reply;
  session_id_ = reply.session_id;
  version_ = raw::string_value(raw::find(reply.result(), "protocolVersion")).value_or("");
  (void)raw(make_notification("notifications/initialized", {}),
            {{"Mcp-Session-Id", session_id_}, {"MCP-Protocol-Version", version_}});
  return reply;
}

void McpClient::speak(std::string version, std::string capabilities) {
  session_id_.clear();
  wanted_ = std::move(version);
  capabilities_ = std::move(capabilities);
}

McpReply McpClient::request(const std::string& method, const std::string& params) {
  if (is_modern_version(wanted_)) {
    const std::string full = modern_params(
        params, {.client_info = R"({"name":"test","version":"1"})", .capabilities = capabilities_});
    HttpHeaders headers = standard_headers(method, full);
    headers.emplace_back("MCP-Protocol-Version", wanted_);
    return raw(make_request(std::to_string(next_id_++), method, full), headers);
  }
  if (session_id_.empty()) {
    if (McpReply opened = initialize(wanted_, capabilities_); !opened.ok()) return opened;
  }
  return raw(make_request(std::to_string(next_id_++), method, params),
             {{"Mcp-Session-Id", session_id_}, {"MCP-Protocol-Version", version_}});
}

McpReply McpClient::call_tool(const std::string& name, const std::string& arguments) {
  return request("tools/call", R"({"name":)" + raw::quote(name) + R"(,"arguments":)" + arguments + "}");
}

namespace {
std::vector<std::string> names(const McpReply& reply, const char* member, const char* key) {
  std::vector<std::string> out;
  const std::string result = reply.result();
  for (std::string_view item : raw::elements(raw::find(result, member)))
    out.push_back(raw::string_value(raw::find(item, key)).value_or(""));
  return out;
}
}  // namespace

std::vector<std::string> McpClient::list_tools() { return names(request("tools/list"), "tools", "name"); }
std::vector<std::string> McpClient::list_resources() {
  return names(request("resources/list"), "resources", "uri");
}
std::vector<std::string> McpClient::list_prompts() {
  return names(request("prompts/list"), "prompts", "name");
}

HttpResponse McpClient::api(const std::string& method, const std::string& path, const std::string& body) {
  HttpRequest request;
  request.method = method;
  request.target = path;
  request.headers = {{"Authorization", "Bearer " + token_}};
  if (!body.empty()) request.headers.emplace_back("Content-Type", "application/json");
  request.body = body;
  request.remote_address = "127.0.0.1";
  return gateway_->send(std::move(request));
}

// --- McpReply ----------------------------------------------------------------------------------------

bool McpReply::ok() const { return !raw::find(body, "result").empty(); }

bool McpReply::needs_input() const { return detail::needs_input(raw::find(body, "result")); }

int McpReply::error_code() const {
  return static_cast<int>(raw::int_value(raw::find(body, "error", "code")).value_or(0));
}

std::string McpReply::error_message() const {
  return raw::string_value(raw::find(body, "error", "message")).value_or("");
}

std::string McpReply::result() const { return std::string(raw::find(body, "result")); }

std::string McpReply::text() const {
  std::string out;
  for (std::string_view block : raw::elements(raw::find(body, "result", "content"))) {
    if (!out.empty()) out += '\n';
    out += raw::string_value(raw::find(block, "text")).value_or("");
  }
  return out;
}

}  // namespace mcpgw::testing
