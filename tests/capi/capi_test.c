/* The C interface as a C99 program sees it. Without an argument: the names of the cases; with one: runs that case. */
#define _POSIX_C_SOURCE 200809L
#include <mcpgw/mcpgw.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)
#define OK(call) CHECK((call) == MCPGW_OK)
#define TEXT(literal) (literal), sizeof(literal) - 1

static const char kSecrets[] =
    "{\"jwt\":{\"secret\":\"0123456789abcdef0123456789abcdef-signing\"},"
    "\"encryption\":{\"key\":\"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"}}";

/* --- a small MCP server, all in callbacks ------------------------------------------------------------------------- */

struct server {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int connected, closed, destroyed, calls;
  int refuse;      /* connect fails */
  int hang;        /* tools/call is never answered */
};
struct connection {
  struct server *server;
  mcpgw_channel *channel;
};

static void server_init(struct server *server) {
  memset(server, 0, sizeof *server);
  pthread_mutex_init(&server->mutex, NULL);
  pthread_cond_init(&server->changed, NULL);
}

static void count(struct server *server, int *what) {
  pthread_mutex_lock(&server->mutex);
  ++*what;
  pthread_cond_broadcast(&server->changed);
  pthread_mutex_unlock(&server->mutex);
}

static void wait_until(struct server *server, const int *what, int at_least) {
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 30;
  pthread_mutex_lock(&server->mutex);
  while (*what < at_least) CHECK(pthread_cond_timedwait(&server->changed, &server->mutex, &until) == 0);
  pthread_mutex_unlock(&server->mutex);
}

static mcpgw_status on_connect(void *user_data, const char *parameters, size_t size, mcpgw_channel *channel,
                               void **connection, mcpgw_reply *reply) {
  struct server *server = user_data;
  struct connection *made;
  CHECK(parameters[size] == '\0');
  if (strstr(parameters, "\"name\":\"mine\"") == NULL) return MCPGW_UNSUPPORTED;
  if (server->refuse) {
    mcpgw_reply_set(reply, TEXT("{\"reason\":\"asleep\",\"message\":\"The server sleeps\"}"));
    return MCPGW_UNAVAILABLE;
  }
  made = malloc(sizeof *made);
  made->server = server;
  made->channel = channel;
  *connection = made;
  count(server, &server->connected);
  return MCPGW_OK;
}

/* Copies the value of "id" as it stands. */
static void id_of(const char *message, char *out, size_t size) {
  const char *at = strstr(message, "\"id\":");
  size_t length;
  out[0] = '\0';
  if (at == NULL) return;
  at += 5;
  length = strcspn(at, ",}");
  CHECK(length < size);
  memcpy(out, at, length);
  out[length] = '\0';
}

static void on_send(void *connection, const char *message, size_t size) {
  struct connection *self = connection;
  const char *result = NULL;
  char id[64], answer[1024];
  CHECK(strlen(message) == size);
  id_of(message, id, sizeof id);
  if (strstr(message, "\"method\":\"initialize\"") != NULL)
    result = "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"c\",\"version\":\"1\"}}";
  else if (strstr(message, "\"method\":\"tools/list\"") != NULL)
    result = "{\"tools\":[{\"name\":\"answer\",\"inputSchema\":{\"type\":\"object\"}}]}";
  else if (strstr(message, "\"method\":\"tools/call\"") != NULL) {
    count(self->server, &self->server->calls);
    if (self->server->hang) return;
    result = "{\"content\":[{\"type\":\"text\",\"text\":\"42\"}]}";
  } else if (id[0] != '\0')
    result = "{}";
  if (result == NULL || id[0] == '\0') return;
  snprintf(answer, sizeof answer, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":%s}", id, result);
  OK(mcpgw_channel_deliver(self->channel, answer, strlen(answer)));
}

static void on_close(void *connection) {
  struct connection *self = connection;
  struct server *server = self->server;
  CHECK(mcpgw_channel_deliver(self->channel, TEXT("{}")) == MCPGW_UNAVAILABLE);
  mcpgw_channel_free(self->channel);
  free(self);
  count(server, &server->closed);
}

static void on_destroy(void *user_data) {
  struct server *server = user_data;
  count(server, &server->destroyed);
}

static mcpgw_upstream_callbacks upstream_of(struct server *server) {
  mcpgw_upstream_callbacks out;
  memset(&out, 0, sizeof out);
  out.struct_size = sizeof out;
  out.user_data = server;
  out.destroy = on_destroy;
  out.connect = on_connect;
  out.send = on_send;
  out.close = on_close;
  return out;
}

/* --- helpers ------------------------------------------------------------------------------------------------------- */

static mcpgw_gateway *gateway_with(const char *options, struct server *server, const mcpgw_log_callbacks *log) {
  mcpgw_upstream_callbacks upstream;
  mcpgw_gateway_parts parts;
  mcpgw_gateway *gateway = NULL;
  char *error = NULL;
  memset(&parts, 0, sizeof parts);
  parts.struct_size = sizeof parts;
  if (server != NULL) {
    upstream = upstream_of(server);
    parts.upstream = &upstream;
  }
  parts.log = log;
  if (mcpgw_gateway_create(options, strlen(options), &parts, &gateway, &error) != MCPGW_OK) {
    fprintf(stderr, "%s\n", error);
    exit(1);
  }
  CHECK(error == NULL);
  return gateway;
}

/* A REST call; the body is the caller's. */
static char *admin(mcpgw_gateway *gateway, const char *user_id, const char *method, const char *target,
                   const char *body, int expected) {
  int status = 0;
  char *out = NULL, *error = NULL;
  OK(mcpgw_gateway_admin(gateway, user_id, strlen(user_id), method, strlen(method), target, strlen(target), body,
                         strlen(body), &status, &out, &error));
  if (status != expected) {
    fprintf(stderr, "%s %s: %d, not %d: %s\n", method, target, status, expected, out);
    exit(1);
  }
  CHECK(error == NULL);
  return out;
}

/* The text of the first member of that name. */
static void member(const char *json, const char *name, char *out, size_t size) {
  char key[64];
  const char *at;
  size_t length;
  snprintf(key, sizeof key, "\"%s\":\"", name);
  at = strstr(json, key);
  CHECK(at != NULL);
  at += strlen(key);
  length = strcspn(at, "\"");
  CHECK(length < size);
  memcpy(out, at, length);
  out[length] = '\0';
}

/* A target of the host's server, a user who may use it, and a token of theirs. */
static void populate(mcpgw_gateway *gateway, char *user_id, char *token, size_t size) {
  char body[512], *out;
  out = admin(gateway, "", "POST", "/api/users",
              "{\"email\":\"alice@example.org\",\"password\":\"a-long-password\",\"role\":\"user\"}", 201);
  member(out, "id", user_id, size);
  mcpgw_free(out);
  out = admin(gateway, "", "POST", "/api/targets",
              "{\"name\":\"mine\",\"transport_type\":\"streamable-http\",\"url\":\"http://host.invalid/mcp\"}", 201);
  mcpgw_free(out);
  snprintf(body, sizeof body,
           "{\"name\":\"alice\",\"effect\":\"allow\",\"subjects\":[{\"subject_type\":\"user\",\"subject_value\":\"%s\"}]}", user_id);
  mcpgw_free(admin(gateway, "", "POST", "/api/policies", body, 201));
  out = admin(gateway, user_id, "POST", "/api/auth/tokens", "{\"name\":\"test\"}", 201);
  member(out, "token", token, size);
  mcpgw_free(out);
}

struct header_list {
  mcpgw_header items[5];
  char authorization[2048];
};

static mcpgw_request request_of(const char *method, const char *target, const char *token, const char *session,
                                const char *body, struct header_list *headers) {
  mcpgw_request out;
  size_t n = 0;
  memset(&out, 0, sizeof out);
  snprintf(headers->authorization, sizeof headers->authorization, "Bearer %s", token);
  {
    const char *pairs[][2] = {{"Authorization", headers->authorization},
                              {"Content-Type", "application/json"},
                              {"Accept", "application/json, text/event-stream"},
                              {"MCP-Protocol-Version", "2025-11-25"},
                              {"Mcp-Session-Id", session}};
    for (n = 0; n < (session[0] != '\0' ? 5u : 3u); ++n) {
      headers->items[n].name = pairs[n][0];
      headers->items[n].name_size = strlen(pairs[n][0]);
      headers->items[n].value = pairs[n][1];
      headers->items[n].value_size = strlen(pairs[n][1]);
    }
  }
  out.struct_size = sizeof out;
  out.method = method;
  out.method_size = strlen(method);
  out.target = target;
  out.target_size = strlen(target);
  out.headers = headers->items;
  out.header_count = n;
  out.body = body;
  out.body_size = strlen(body);
  return out;
}

static mcpgw_response *post(mcpgw_gateway *gateway, const char *token, const char *session, const char *body) {
  struct header_list headers;
  mcpgw_request request = request_of("POST", "/mcp", token, session, body, &headers);
  mcpgw_response *response = NULL;
  char *error = NULL;
  OK(mcpgw_gateway_handle(gateway, &request, 30000, &response, &error));
  CHECK(error == NULL && response != NULL);
  return response;
}

static void open_session(mcpgw_gateway *gateway, const char *token, char *session, size_t size) {
  size_t i;
  mcpgw_response *response =
      post(gateway, token, "",
           "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\","
           "\"capabilities\":{},\"clientInfo\":{\"name\":\"c\",\"version\":\"1\"}}}");
  if (mcpgw_response_status(response) != 200) fprintf(stderr, "%s\n", mcpgw_response_body(response, NULL));
  CHECK(mcpgw_response_status(response) == 200);
  session[0] = '\0';
  for (i = 0; i < mcpgw_response_header_count(response); ++i) {
    const mcpgw_header header = mcpgw_response_header(response, i);
    if (header.name_size == 14 && memcmp(header.name, "Mcp-Session-Id", 14) == 0) {
      CHECK(header.value_size < size);
      memcpy(session, header.value, header.value_size);
      session[header.value_size] = '\0';
    }
  }
  CHECK(session[0] != '\0');
  CHECK(mcpgw_response_header(response, i).name == NULL);
  mcpgw_response_free(response);
  mcpgw_response_free(post(gateway, token, session, "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}"));
}

static const char kCall[] = "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"name\":\"answer\",\"arguments\":{}}}";

/* --- cases --------------------------------------------------------------------------------------------------------- */

static void version(void) {
  unsigned major, minor, patch;
  CHECK(sscanf(mcpgw_version(), "%u.%u.%u", &major, &minor, &patch) == 3);
  CHECK(mcpgw_version_number() == major * 1000000 + minor * 1000 + patch);
  CHECK(strcmp(mcpgw_status_name(MCPGW_OK), "ok") == 0);
  CHECK(strcmp(mcpgw_status_name(MCPGW_NOT_FOUND), "not_found") == 0);
  CHECK(strcmp(mcpgw_status_name(MCPGW_INTERNAL), "internal") == 0);
  CHECK(strcmp(mcpgw_status_name((mcpgw_status)99), "internal") == 0);
}

static void refusals(void) {
  static const char *const wrong[][2] = {
      {"{", "invalid_options"},
      {"[]", "invalid_options"},
      {"{\"a\":1,\"a\":2}", "invalid_options"},
      {"{\"nothing\":1}", "unknown_option"},
      {"{\"jwt\":{\"secrets\":1}}", "unknown_option"},
      {"{\"jwt\":\"x\"}", "invalid_option"},
      {"{\"jwt\":{\"secret\":\"hush-hush\"}}", "invalid_option"},
      {"{\"jwt\":{\"secret\":[\"hush-hush\"]}}", "invalid_option"},
      {"{\"encryption\":{\"key\":\"hush-hush\"}}", "invalid_option"},
      {"{\"session\":{\"timeout\":\"soon\"}}", "invalid_option"},
      {"{\"server\":{\"port\":70000}}", "invalid_option"},
      {"{\"cors\":{\"allowed_origins\":\"*\"}}", "invalid_option"},
      {"{\"server\":{\"tls\":{\"cert\":\"/c.pem\"}}}", "invalid_option"},
      {"{\"database\":{\"url\":\"sqlite://hush-hush.db\"}}", "invalid_option"},
      {"{\"database\":{\"url\":\"postgres://u:hush-hush@h/d\"}}", "invalid_option"},
      {"{\"database\":{\"host\":\"h\",\"password\":\"hush-hush\",\"url\":\"sqlite://x.db\"}}", "invalid_option"},
      {"{\"replicas\":{\"host\":\"127.0.0.1\"}}", "invalid_option"},
  };
  size_t i;
  for (i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    mcpgw_gateway *gateway = (mcpgw_gateway *)1;
    mcpgw_repository *repository = (mcpgw_repository *)1;
    char *error = NULL, reason[64];
    mcpgw_status status = mcpgw_gateway_create(wrong[i][0], strlen(wrong[i][0]), NULL, &gateway, &error);
    fprintf(stderr, "%s -> %s\n", wrong[i][0], error);
    CHECK(status == MCPGW_INVALID_ARGUMENT || status == MCPGW_UNSUPPORTED);
    CHECK(gateway == NULL && error != NULL);
    member(error, "reason", reason, sizeof reason);
    CHECK(strcmp(reason, wrong[i][1]) == 0);
    CHECK(strstr(error, "hush-hush") == NULL);
    mcpgw_free(error);
    CHECK(mcpgw_repository_open(wrong[i][0], strlen(wrong[i][0]), NULL, &repository, NULL) == status);
    CHECK(repository == NULL);
  }
  {
    char *error = NULL;
    mcpgw_gateway *gateway = gateway_with("", NULL, NULL);
    mcpgw_response *response = (mcpgw_response *)1;
    mcpgw_request request;
    CHECK(mcpgw_gateway_create(NULL, 0, NULL, NULL, NULL) == MCPGW_INVALID_ARGUMENT);
    CHECK(mcpgw_gateway_handle(gateway, NULL, 0, &response, NULL) == MCPGW_INVALID_ARGUMENT);
    CHECK(response == NULL);
    memset(&request, 0, sizeof request);
    CHECK(mcpgw_gateway_handle(gateway, &request, 0, &response, &error) == MCPGW_INVALID_ARGUMENT);
    CHECK(strstr(error, "invalid_request") != NULL);
    mcpgw_free(error);
    CHECK(mcpgw_gateway_handle(NULL, &request, 0, &response, NULL) == MCPGW_INVALID_ARGUMENT);
    CHECK(mcpgw_server_start(gateway, TEXT("{\"server\":{\"host\":\"nowhere.invalid\"}}"), (mcpgw_server **)&response,
                             NULL) != MCPGW_OK);
    mcpgw_gateway_free(gateway);
  }
  mcpgw_gateway_free(NULL);
  mcpgw_gateway_close(NULL, 0);
  mcpgw_response_free(NULL);
  mcpgw_server_free(NULL);
  mcpgw_repository_free(NULL);
  mcpgw_policy_engine_free(NULL);
  mcpgw_token_resolver_free(NULL);
  mcpgw_env_resolver_free(NULL);
  mcpgw_storage_free(NULL);
  mcpgw_call_free(NULL);
  mcpgw_channel_free(NULL);
  mcpgw_free(NULL);
}

/* A host that was compiled against an older header hands shorter structs in. */
static void struct_sizes(void) {
  mcpgw_gateway_parts parts;
  mcpgw_upstream_callbacks upstream;
  mcpgw_storage_callbacks storage;
  mcpgw_gateway *gateway = NULL;
  mcpgw_storage *handle = NULL;
  mcpgw_response *response = NULL;
  struct header_list headers;
  mcpgw_request request;
  memset(&parts, 0, sizeof parts);
  CHECK(mcpgw_gateway_create(NULL, 0, &parts, &gateway, NULL) == MCPGW_INVALID_ARGUMENT);
  parts.struct_size = (uint32_t)offsetof(mcpgw_gateway_parts, upstream);
  parts.upstream = (const mcpgw_upstream_callbacks *)16; /* not looked at */
  OK(mcpgw_gateway_create(NULL, 0, &parts, &gateway, NULL));
  request = request_of("GET", "/version", "x", "", "", &headers);
  request.struct_size = (uint32_t)offsetof(mcpgw_request, remote_address);
  request.remote_address = (const char *)16;
  OK(mcpgw_gateway_handle(gateway, &request, 0, &response, NULL));
  CHECK(mcpgw_response_status(response) == 200);
  CHECK(strstr(mcpgw_response_body(response, NULL), mcpgw_version()) != NULL);
  mcpgw_response_free(response);
  mcpgw_gateway_free(gateway);

  memset(&upstream, 0, sizeof upstream);
  parts.struct_size = sizeof parts;
  parts.upstream = &upstream;
  CHECK(mcpgw_gateway_create(NULL, 0, &parts, &gateway, NULL) == MCPGW_INVALID_ARGUMENT);
  memset(&storage, 0, sizeof storage);
  storage.struct_size = sizeof storage;
  CHECK(mcpgw_storage_create(&storage, &handle, NULL) == MCPGW_INVALID_ARGUMENT);
  CHECK(mcpgw_storage_create(NULL, &handle, NULL) == MCPGW_INVALID_ARGUMENT);
}

static void tool_call(void) {
  struct server server;
  char user_id[128], token[1024], session[128];
  mcpgw_gateway *gateway;
  mcpgw_response *response;
  size_t size = 0;
  const char *body;
  server_init(&server);
  gateway = gateway_with(kSecrets, &server, NULL);
  populate(gateway, user_id, token, sizeof token);
  open_session(gateway, token, session, sizeof session);
  response = post(gateway, token, session, kCall);
  body = mcpgw_response_body(response, &size);
  CHECK(mcpgw_response_status(response) == 200);
  CHECK(strlen(body) == size && strstr(body, "\"text\":\"42\"") != NULL);
  mcpgw_response_free(response);
  CHECK(server.calls == 1 && server.connected == 1);
  /* Whose right has gone is refused, and the server hears nothing of it. */
  mcpgw_free(admin(gateway, "", "PUT", "/api/users/alice", "{}", 400));
  {
    char path[256];
    snprintf(path, sizeof path, "/api/users/%s", user_id);
    mcpgw_free(admin(gateway, "", "PUT", path, "{\"enabled\":false}", 200));
  }
  response = post(gateway, token, session, kCall);
  CHECK(mcpgw_response_status(response) == 401);
  mcpgw_response_free(response);
  CHECK(server.calls == 1);
  mcpgw_gateway_free(gateway);
  CHECK(server.closed == 1 && server.destroyed == 1);
}

static void upstream_faults(void) {
  struct server server;
  char user_id[128], token[1024], session[128];
  mcpgw_gateway *gateway;
  mcpgw_response *response;
  server_init(&server);
  server.refuse = 1;
  gateway = gateway_with(kSecrets, &server, NULL);
  populate(gateway, user_id, token, sizeof token);
  open_session(gateway, token, session, sizeof session);
  response = post(gateway, token, session, kCall);
  CHECK(strstr(mcpgw_response_body(response, NULL), "\"error\"") != NULL);
  mcpgw_response_free(response);
  CHECK(server.calls == 0 && server.connected == 0);
  mcpgw_gateway_free(gateway);
  CHECK(server.destroyed == 1 && server.closed == 0);
}

/* A gateway that ends while a call waits. */
static void *wait_for_answer(void *argument) {
  void **parts = argument;
  mcpgw_response *response = post(parts[0], parts[1], parts[2], kCall);
  CHECK(strstr(mcpgw_response_body(response, NULL), "\"error\"") != NULL);
  mcpgw_response_free(response);
  return NULL;
}

static void close_during_a_call(void) {
  struct server server;
  char user_id[128], token[1024], session[128];
  pthread_t thread;
  void *parts[3];
  server_init(&server);
  server.hang = 1;
  parts[0] = gateway_with(kSecrets, &server, NULL);
  populate(parts[0], user_id, token, sizeof token);
  open_session(parts[0], token, session, sizeof session);
  parts[1] = token;
  parts[2] = session;
  CHECK(pthread_create(&thread, NULL, wait_for_answer, parts) == 0);
  wait_until(&server, &server.calls, 1);
  mcpgw_gateway_close(parts[0], 100);
  CHECK(pthread_join(thread, NULL) == 0);
  mcpgw_gateway_free(parts[0]);
  CHECK(server.closed == 1 && server.destroyed == 1);
}

/* --- streams --- */
struct answer {
  struct server sync; /* for its lock */
  int heads, status, streamed, ended, complete, data;
  char text[8192];
  size_t size;
  int stop; /* on_data says that the client is gone */
};

static void on_head(void *user_data, int status, const mcpgw_header *headers, size_t header_count, int streamed) {
  struct answer *answer = user_data;
  CHECK(header_count > 0 && headers[0].name_size > 0);
  answer->status = status;
  answer->streamed = streamed;
  count(&answer->sync, &answer->heads);
}
static int on_data(void *user_data, const char *data, size_t size) {
  struct answer *answer = user_data;
  CHECK(answer->heads == 1 && !answer->ended);
  CHECK(answer->size + size < sizeof answer->text);
  memcpy(answer->text + answer->size, data, size);
  answer->size += size;
  count(&answer->sync, &answer->data);
  return answer->stop;
}
static void on_end(void *user_data, int complete) {
  struct answer *answer = user_data;
  answer->complete = complete;
  count(&answer->sync, &answer->ended);
}
static mcpgw_answer_callbacks callbacks_of(struct answer *answer) {
  mcpgw_answer_callbacks out;
  memset(answer, 0, sizeof *answer);
  server_init(&answer->sync);
  memset(&out, 0, sizeof out);
  out.struct_size = sizeof out;
  out.user_data = answer;
  out.on_head = on_head;
  out.on_data = on_data;
  out.on_end = on_end;
  return out;
}

static void streams(void) {
  struct server server;
  struct answer stream, call, cancelled;
  struct header_list headers;
  char user_id[128], token[1024], session[128];
  mcpgw_gateway *gateway;
  mcpgw_call *stream_call = NULL, *hanging = NULL;
  mcpgw_answer_callbacks callbacks;
  mcpgw_request request;
  server_init(&server);
  gateway = gateway_with(kSecrets, &server, NULL);
  populate(gateway, user_id, token, sizeof token);
  open_session(gateway, token, session, sizeof session);

  /* A whole answer. */
  callbacks = callbacks_of(&call);
  request = request_of("POST", "/mcp", token, session, kCall, &headers);
  OK(mcpgw_gateway_handle_async(gateway, &request, &callbacks, NULL, NULL));
  wait_until(&call.sync, &call.ended, 1);
  CHECK(call.complete == 1 && call.status == 200 && strstr(call.text, "\"text\":\"42\"") != NULL);

  /* A stream stays open until its client goes. */
  callbacks = callbacks_of(&stream);
  request = request_of("GET", "/mcp", token, session, "", &headers);
  OK(mcpgw_gateway_handle_async(gateway, &request, &callbacks, &stream_call, NULL));
  wait_until(&stream.sync, &stream.heads, 1);
  CHECK(stream.status == 200 && stream.streamed == 1 && stream.ended == 0);
  mcpgw_call_cancel(stream_call);
  wait_until(&stream.sync, &stream.ended, 1);
  CHECK(stream.complete == 0);
  mcpgw_call_cancel(stream_call);
  mcpgw_call_free(stream_call);

  /* A call that waits, cancelled. */
  server.hang = 1;
  callbacks = callbacks_of(&cancelled);
  request = request_of("POST", "/mcp", token, session, kCall, &headers);
  OK(mcpgw_gateway_handle_async(gateway, &request, &callbacks, &hanging, NULL));
  wait_until(&server, &server.calls, 2);
  mcpgw_call_cancel(hanging);
  wait_until(&cancelled.sync, &cancelled.ended, 1);
  CHECK(cancelled.complete == 0 && cancelled.ended == 1);

  /* One that ends with the gateway; its handle is freed afterwards. */
  callbacks = callbacks_of(&stream);
  request = request_of("GET", "/mcp", token, session, "", &headers);
  OK(mcpgw_gateway_handle_async(gateway, &request, &callbacks, &stream_call, NULL));
  wait_until(&stream.sync, &stream.heads, 1);
  mcpgw_gateway_free(gateway);
  CHECK(stream.ended == 1);
  mcpgw_call_cancel(stream_call);
  mcpgw_call_free(stream_call);
  mcpgw_call_free(hanging);
  CHECK(server.closed == server.connected && server.destroyed == 1);
}

/* --- server --- */
static void get(int port, const char *path, char *out, size_t size) {
  struct sockaddr_in address;
  char request[256];
  size_t got = 0;
  ssize_t n;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
  snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n", path, port);
  CHECK(write(fd, request, strlen(request)) == (ssize_t)strlen(request));
  while ((n = read(fd, out + got, size - 1 - got)) > 0) got += (size_t)n;
  out[got] = '\0';
  close(fd);
}

static void server(void) {
  mcpgw_gateway *gateway = gateway_with(kSecrets, NULL, NULL);
  mcpgw_server *first = NULL, *second = NULL;
  char answer[8192], url[64], *error = NULL, options[64];
  OK(mcpgw_server_start(gateway, NULL, 0, &first, NULL));
  snprintf(url, sizeof url, "http://127.0.0.1:%d", mcpgw_server_port(first));
  CHECK(strcmp(mcpgw_server_url(first), url) == 0);
  get(mcpgw_server_port(first), "/version", answer, sizeof answer);
  CHECK(strstr(answer, "200 OK") != NULL && strstr(answer, mcpgw_version()) != NULL);
  snprintf(options, sizeof options, "{\"server\":{\"port\":%d}}", mcpgw_server_port(first));
  CHECK(mcpgw_server_start(gateway, options, strlen(options), &second, &error) == MCPGW_UNAVAILABLE);
  CHECK(strstr(error, "address_in_use") != NULL && second == NULL);
  mcpgw_free(error);
  OK(mcpgw_server_start(gateway, TEXT("{\"server\":{\"port\":0}}"), &second, NULL));
  mcpgw_server_drain(first);
  mcpgw_server_stop(first);
  get(mcpgw_server_port(second), "/health", answer, sizeof answer);
  CHECK(strstr(answer, "200 OK") != NULL);
  mcpgw_gateway_free(gateway); /* before its servers */
  get(mcpgw_server_port(second), "/api/users", answer, sizeof answer);
  CHECK(strstr(answer, "HTTP/1.1 503") != NULL);
  mcpgw_server_free(second);
  mcpgw_server_free(first);
}

/* --- policies and credentials --- */
static char *evaluate(mcpgw_policy_engine *engine, const char *question) {
  char *out = NULL, *error = NULL;
  if (mcpgw_policy_engine_evaluate(engine, question, strlen(question), &out, &error) != MCPGW_OK) {
    fprintf(stderr, "%s\n", error);
    exit(1);
  }
  return out;
}
static char *rest(mcpgw_repository *repository, const char *method, const char *target, const char *body, int expected) {
  int status = 0;
  char *out = NULL;
  OK(mcpgw_repository_admin(repository, NULL, 0, method, strlen(method), target, strlen(target), body, strlen(body), &status,
                            &out, NULL));
  if (status != expected) {
    fprintf(stderr, "%s %s: %d, not %d: %s\n", method, target, status, expected, out);
    exit(1);
  }
  return out;
}

static void repository(void) {
  static const char *const wrong[] = {"", "[]", "{}", "{\"user\":\"a\"}", "{\"user\":1,\"target\":\"t\"}",
                                      "{\"user\":\"a\",\"principal\":{},\"target\":\"t\",\"type\":\"tool\",\"name\":\"x\"}",
                                      "{\"principal\":{\"groups\":[1]},\"target\":\"t\",\"type\":\"tool\",\"name\":\"x\"}",
                                      "{\"principal\":{},\"target\":\"t\",\"type\":\"all\",\"name\":\"x\"}"};
  mcpgw_repository *repository = NULL;
  mcpgw_policy_engine *engine = NULL;
  mcpgw_token_resolver *tokens = NULL;
  mcpgw_env_resolver *env = NULL;
  char id[128], path[256], *out = NULL, *error = NULL;
  size_t i;
  OK(mcpgw_repository_open(kSecrets, sizeof kSecrets - 1, NULL, &repository, &error));
  CHECK(error == NULL);
  OK(mcpgw_policy_engine_create(repository, &engine, NULL));
  OK(mcpgw_token_resolver_create(repository, &tokens, NULL));
  OK(mcpgw_env_resolver_create(repository, &env, NULL));
  mcpgw_free(rest(repository, "POST", "/api/users",
                  "{\"email\":\"bob@example.org\",\"password\":\"a-long-password\",\"role\":\"user\",\"groups\":[\"dev\"]}", 201));
  out = rest(repository, "POST", "/api/targets",
             "{\"name\":\"git\",\"transport_type\":\"streamable-http\",\"url\":\"https://git.invalid/mcp\",\"auth_type\":\"bearer\"}", 201);
  member(out, "id", id, sizeof id);
  mcpgw_free(out);
  mcpgw_free(rest(repository, "POST", "/api/policies",
                  "{\"name\":\"devs read\",\"effect\":\"allow\",\"resource_type\":\"tool\",\"resource_pattern\":\"^git_log$\","
                  "\"subjects\":[{\"subject_type\":\"group\",\"subject_value\":\"dev\"}]}",
                  201));

  out = evaluate(engine, "{\"user\":\"bob@example.org\",\"target\":\"git\",\"type\":\"tool\",\"name\":\"git_log\"}");
  CHECK(strstr(out, "\"allowed\":true") != NULL && strstr(out, "devs read") != NULL);
  mcpgw_free(out);
  out = evaluate(engine,
                 "{\"user\":\"bob@example.org\",\"target\":\"git\",\"type\":\"tool\",\"name\":\"git_push\",\"explain\":true}");
  CHECK(strstr(out, "\"allowed\":false") != NULL && strstr(out, "\"why\":\"pattern\"") != NULL);
  mcpgw_free(out);
  out = evaluate(engine, "{\"user\":\"nobody\",\"target\":\"git\",\"type\":\"tool\",\"name\":\"git_log\"}");
  CHECK(strstr(out, "\"allowed\":false") != NULL && strstr(out, "unknown_user") != NULL);
  mcpgw_free(out);
  out = evaluate(engine, "{\"user\":\"bob@example.org\",\"target\":\"svn\",\"type\":\"tool\",\"name\":\"git_log\"}");
  CHECK(strstr(out, "\"allowed\":false") != NULL && strstr(out, "no_matching_policy") != NULL);
  mcpgw_free(out);
  out = evaluate(engine, "{\"principal\":{\"groups\":[\"dev\"]},\"target\":\"git\",\"type\":\"tool\",\"name\":\"git_log\"}");
  CHECK(strstr(out, "\"allowed\":true") != NULL);
  mcpgw_free(out);
  for (i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    CHECK(mcpgw_policy_engine_evaluate(engine, wrong[i], strlen(wrong[i]), &out, &error) == MCPGW_INVALID_ARGUMENT);
    CHECK(out == NULL && strstr(error, "invalid_question") != NULL);
    mcpgw_free(error);
  }

  {
    static const char question[] = "{\"user\":\"bob@example.org\",\"target\":\"git\"}";
    OK(mcpgw_token_resolver_resolve(tokens, TEXT(question), &out, NULL));
    CHECK(strcmp(out, "null") == 0);
    mcpgw_free(out);
    snprintf(path, sizeof path, "/api/targets/%s/tokens/default", id);
    mcpgw_free(rest(repository, "PUT", path, "{\"token\":\"everyone's\"}", 200));
    snprintf(path, sizeof path, "/api/targets/%s/tokens/group", id);
    mcpgw_free(rest(repository, "PUT", path, "{\"group\":\"dev\",\"token\":\"the devs'\"}", 200));
    OK(mcpgw_token_resolver_resolve(tokens, TEXT(question), &out, NULL));
    CHECK(strstr(out, "the devs'") != NULL && strstr(out, "\"scope\":\"group\"") != NULL);
    mcpgw_free(out);
    snprintf(path, sizeof path, "/api/targets/%s/env/default", id);
    mcpgw_free(rest(repository, "PUT", path, "{\"configs\":{\"REGION\":\"eu\"}}", 200));
    OK(mcpgw_env_resolver_resolve(env, TEXT(question), &out, NULL));
    CHECK(strstr(out, "\"REGION\":\"eu\"") != NULL && strstr(out, "\"scope\":\"default\"") != NULL);
    mcpgw_free(out);
    CHECK(mcpgw_env_resolver_resolve(env, TEXT("{\"user\":\"x\",\"target\":\"git\"}"), &out, NULL) == MCPGW_NOT_FOUND);
    CHECK(mcpgw_token_resolver_resolve(tokens, TEXT("{\"user\":\"bob@example.org\",\"target\":\"x\"}"), &out, NULL) ==
          MCPGW_NOT_FOUND);
  }
  /* The secret of the host's calls goes to the REST API alone. */
  CHECK(mcpgw_repository_admin(repository, NULL, 0, TEXT("POST"), TEXT("/mcp"), TEXT("{}"), NULL, NULL, &error) ==
        MCPGW_INVALID_ARGUMENT);
  mcpgw_free(error);
  mcpgw_repository_free(repository); /* before what was made of it */
  out = evaluate(engine, "{\"user\":\"bob@example.org\",\"target\":\"git\",\"type\":\"tool\",\"name\":\"git_log\"}");
  CHECK(strstr(out, "\"allowed\":true") != NULL);
  mcpgw_free(out);
  mcpgw_policy_engine_free(engine);
  mcpgw_token_resolver_free(tokens);
  mcpgw_env_resolver_free(env);
}

static void repository_of_a_gateway(void) {
  struct server server;
  char user_id[128], token[1024], *out;
  mcpgw_gateway *gateway;
  mcpgw_repository *repository = NULL;
  mcpgw_policy_engine *engine = NULL;
  server_init(&server);
  gateway = gateway_with(kSecrets, &server, NULL);
  OK(mcpgw_gateway_repository(gateway, &repository, NULL));
  OK(mcpgw_policy_engine_create(repository, &engine, NULL));
  populate(gateway, user_id, token, sizeof token);
  out = evaluate(engine, "{\"user\":\"alice@example.org\",\"target\":\"mine\",\"type\":\"tool\",\"name\":\"answer\"}");
  CHECK(strstr(out, "\"allowed\":true") != NULL);
  mcpgw_free(out);
  mcpgw_free(rest(repository, "GET", "/api/users", "", 200));
  mcpgw_gateway_free(gateway);
  mcpgw_free(rest(repository, "GET", "/api/users", "", 503));
  out = evaluate(engine, "{\"user\":\"alice@example.org\",\"target\":\"mine\",\"type\":\"tool\",\"name\":\"answer\"}");
  CHECK(strstr(out, "\"allowed\":true") != NULL);
  mcpgw_free(out);
  mcpgw_repository_free(repository);
  mcpgw_policy_engine_free(engine);
}

static void sqlite(void) {
  char path[] = "/tmp/mcpgw-capi-XXXXXX", file[64], options[512], user_id[128], token[1024], *out;
  struct server server;
  mcpgw_gateway *gateway;
  mcpgw_response *response;
  char session[128];
  server_init(&server);
  CHECK(mkdtemp(path) != NULL);
  snprintf(file, sizeof file, "%s/gateway.db", path);
  snprintf(options, sizeof options, "{\"database\":{\"url\":\"sqlite://%s\"},%s", file, kSecrets + 1);
  gateway = gateway_with(options, &server, NULL);
  populate(gateway, user_id, token, sizeof token);
  mcpgw_gateway_free(gateway);
  gateway = gateway_with(options, &server, NULL);
  out = admin(gateway, "", "GET", "/api/users", "", 200);
  CHECK(strstr(out, "alice@example.org") != NULL);
  mcpgw_free(out);
  open_session(gateway, token, session, sizeof session);
  response = post(gateway, token, session, kCall);
  CHECK(strstr(mcpgw_response_body(response, NULL), "\"text\":\"42\"") != NULL);
  mcpgw_response_free(response);
  mcpgw_gateway_free(gateway);
  {
    mcpgw_repository *repository = NULL;
    char *error = NULL;
    snprintf(options, sizeof options, "{\"database\":{\"url\":\"sqlite://%s\"}}", file);
    CHECK(mcpgw_repository_open(options, strlen(options), NULL, &repository, &error) == MCPGW_INVALID_ARGUMENT);
    CHECK(strstr(error, "encryption.key") != NULL);
    mcpgw_free(error);
  }
  {
    const char *const ends[] = {"", "-wal", "-shm"};
    size_t i;
    for (i = 0; i < 3; ++i) {
      char name[96];
      snprintf(name, sizeof name, "%s%s", file, ends[i]);
      unlink(name);
    }
    CHECK(rmdir(path) == 0);
  }
}

/* --- storage that is away --- */
static mcpgw_status away_get(void *u, const char *c, size_t cs, const char *k, size_t ks, mcpgw_reply *reply) {
  (void)u, (void)c, (void)cs, (void)k, (void)ks, (void)reply;
  return MCPGW_UNAVAILABLE;
}
static mcpgw_status away_list(void *u, const char *c, size_t cs, const char *p, size_t ps, const char *a, size_t as,
                              uint64_t limit, mcpgw_reply *reply) {
  (void)u, (void)c, (void)cs, (void)p, (void)ps, (void)a, (void)as, (void)limit;
  mcpgw_reply_set(reply, TEXT("{\"message\":\"The disk is on holiday\"}"));
  return MCPGW_UNAVAILABLE;
}
static mcpgw_status away_commit(void *u, const char *o, size_t s, mcpgw_reply *reply) {
  (void)u, (void)o, (void)s, (void)reply;
  return MCPGW_UNAVAILABLE;
}
static void storage_away(void) {
  struct server counter;
  mcpgw_storage_callbacks callbacks;
  mcpgw_storage *storage = NULL;
  mcpgw_gateway_parts parts;
  mcpgw_gateway *gateway = NULL;
  mcpgw_repository *repository = NULL;
  char *error = NULL;
  server_init(&counter);
  memset(&callbacks, 0, sizeof callbacks);
  callbacks.struct_size = sizeof callbacks;
  callbacks.user_data = &counter;
  callbacks.destroy = on_destroy;
  callbacks.get = away_get;
  callbacks.list = away_list;
  callbacks.commit = away_commit;
  OK(mcpgw_storage_create(&callbacks, &storage, NULL));
  memset(&parts, 0, sizeof parts);
  parts.struct_size = sizeof parts;
  parts.storage = storage;
  CHECK(mcpgw_gateway_create(kSecrets, sizeof kSecrets - 1, &parts, &gateway, &error) == MCPGW_UNAVAILABLE);
  fprintf(stderr, "%s\n", error);
  CHECK(gateway == NULL && strstr(error, "storage_unavailable") != NULL);
  mcpgw_free(error);
  CHECK(mcpgw_gateway_create(TEXT("{\"database\":{\"url\":\"sqlite://x.db\"}}"), &parts, &gateway, NULL) ==
        MCPGW_INVALID_ARGUMENT);
  /* What a key that is made up seals could not be opened after a restart, and the storage is asked nothing before. */
  CHECK(mcpgw_gateway_create(NULL, 0, &parts, &gateway, &error) == MCPGW_INVALID_ARGUMENT);
  CHECK(gateway == NULL && strstr(error, "\"field\":\"encryption.key\"") != NULL && strstr(error, "storage of the host") != NULL);
  mcpgw_free(error);
  CHECK(mcpgw_repository_open(NULL, 0, storage, &repository, &error) == MCPGW_INVALID_ARGUMENT);
  CHECK(repository == NULL && strstr(error, "\"field\":\"encryption.key\"") != NULL);
  mcpgw_free(error);
  CHECK(counter.destroyed == 0);
  mcpgw_storage_free(storage);
  CHECK(counter.destroyed == 1);
}

/* One memory, two that stand on it: what one seals the other opens, though nobody named a key. */
static void shared_memory(void) {
  mcpgw_storage *storage = NULL;
  mcpgw_repository *first = NULL, *second = NULL;
  mcpgw_token_resolver *tokens = NULL;
  char id[128], path[256], *out = NULL;
  OK(mcpgw_storage_create_memory(&storage, NULL));
  OK(mcpgw_repository_open(NULL, 0, storage, &first, NULL));
  out = rest(first, "POST", "/api/targets",
             "{\"name\":\"git\",\"transport_type\":\"streamable-http\",\"url\":\"https://git.invalid/mcp\",\"auth_type\":\"bearer\"}", 201);
  member(out, "id", id, sizeof id);
  mcpgw_free(out);
  mcpgw_free(rest(first, "POST", "/api/users", "{\"email\":\"bob@example.org\",\"password\":\"a-long-password\"}", 201));
  snprintf(path, sizeof path, "/api/targets/%s/tokens/default", id);
  mcpgw_free(rest(first, "PUT", path, "{\"token\":\"everyone's\"}", 200));
  mcpgw_repository_free(first);

  OK(mcpgw_repository_open(NULL, 0, storage, &second, NULL));
  mcpgw_storage_free(storage);
  OK(mcpgw_token_resolver_create(second, &tokens, NULL));
  OK(mcpgw_token_resolver_resolve(tokens, TEXT("{\"user\":\"bob@example.org\",\"target\":\"git\"}"), &out, NULL));
  CHECK(strstr(out, "everyone's") != NULL);
  mcpgw_free(out);
  mcpgw_token_resolver_free(tokens);
  mcpgw_repository_free(second);
}

/* --- log --- */
struct lines {
  struct server sync;
  int lines, secrets;
};
static void on_log(void *user_data, mcpgw_log_level level, const char *event, size_t size) {
  struct lines *lines = user_data;
  CHECK(level >= MCPGW_LOG_TRACE && level <= MCPGW_LOG_ERROR);
  CHECK(strlen(event) == size && strstr(event, "\"module\":\"") != NULL);
  if (strstr(event, "a-long-password") != NULL || strstr(event, "-signing") != NULL) ++lines->secrets;
  count(&lines->sync, &lines->lines);
}
static void on_log_end(void *user_data) {
  struct lines *lines = user_data;
  count(&lines->sync, &lines->sync.destroyed);
}
static void log_lines(void) {
  struct lines lines;
  struct server server;
  mcpgw_log_callbacks log;
  mcpgw_gateway *gateway;
  char options[512], user_id[128], token[1024], session[128];
  int before;
  memset(&lines, 0, sizeof lines);
  server_init(&lines.sync);
  server_init(&server);
  memset(&log, 0, sizeof log);
  log.struct_size = sizeof log;
  log.user_data = &lines;
  log.destroy = on_log_end;
  log.log = on_log;
  snprintf(options, sizeof options, "{\"logging\":{\"level\":\"trace\"},%s", kSecrets + 1);
  gateway = gateway_with(options, &server, &log);
  populate(gateway, user_id, token, sizeof token);
  open_session(gateway, token, session, sizeof session);
  mcpgw_response_free(post(gateway, token, session, kCall));
  mcpgw_gateway_free(gateway);
  CHECK(lines.lines > 0 && lines.secrets == 0 && lines.sync.destroyed == 1);
  before = lines.lines;
  snprintf(options, sizeof options, "{\"logging\":{\"level\":\"off\"},%s", kSecrets + 1);
  gateway = gateway_with(options, &server, &log);
  populate(gateway, user_id, token, sizeof token);
  mcpgw_gateway_free(gateway);
  CHECK(lines.lines == before && lines.sync.destroyed == 2);
}

/* --- many at once --- */
struct worker {
  mcpgw_gateway *gateway;
  const char *token;
};
static void *work(void *argument) {
  struct worker *worker = argument;
  char session[128];
  int i;
  open_session(worker->gateway, worker->token, session, sizeof session);
  for (i = 0; i < 25; ++i) {
    mcpgw_response *response = post(worker->gateway, worker->token, session, kCall);
    CHECK(strstr(mcpgw_response_body(response, NULL), "\"text\":\"42\"") != NULL);
    mcpgw_response_free(response);
  }
  return NULL;
}
static void threads(void) {
  struct server server;
  struct worker worker;
  pthread_t all[8];
  char user_id[128], token[1024];
  size_t i;
  server_init(&server);
  worker.gateway = gateway_with(kSecrets, &server, NULL);
  populate(worker.gateway, user_id, token, sizeof token);
  worker.token = token;
  for (i = 0; i < 8; ++i) CHECK(pthread_create(&all[i], NULL, work, &worker) == 0);
  for (i = 0; i < 8; ++i) CHECK(pthread_join(all[i], NULL) == 0);
  CHECK(server.calls == 200);
  mcpgw_gateway_free(worker.gateway);
  CHECK(server.closed == server.connected && server.destroyed == 1);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    void (*run)(void);
  } cases[] = {{"version", version},
               {"refusals", refusals},
               {"struct_sizes", struct_sizes},
               {"tool_call", tool_call},
               {"upstream_faults", upstream_faults},
               {"close_during_a_call", close_during_a_call},
               {"streams", streams},
               {"server", server},
               {"repository", repository},
               {"repository_of_a_gateway", repository_of_a_gateway},
               {"sqlite", sqlite},
               {"storage_away", storage_away},
               {"shared_memory", shared_memory},
               {"log_lines", log_lines},
               {"threads", threads}};
  size_t i;
  for (i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    if (argc < 2) {
      puts(cases[i].name);
    } else if (strcmp(argv[1], cases[i].name) == 0) {
      cases[i].run();
      return 0;
    }
  }
  return argc < 2 ? 0 : 2;
}
