/* A C program with a gateway inside, and an MCP server of its own that is one callback.
 *
 *   $ c_host
 *   alice: {"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"21 degrees"}], ...}}
 */
#include <mcpgw/mcpgw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the MCP server: answers what the gateway asks. A real one parses JSON. --- */
static mcpgw_status connect_weather(void *user_data, const char *parameters, size_t size, mcpgw_channel *channel,
                                    void **connection, mcpgw_reply *reply) {
  (void)user_data, (void)parameters, (void)size, (void)reply;
  *connection = channel; /* all that this server needs to know of a connection */
  return MCPGW_OK;
}

static void send_weather(void *connection, const char *message, size_t size) {
  const char *result = "{}", *id = strstr(message, "\"id\":");
  char answer[512];
  int length;
  (void)size;
  if (id == NULL) return; /* a notification */
  if (strstr(message, "\"initialize\"") != NULL)
    result = "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"weather\",\"version\":\"1\"}}";
  else if (strstr(message, "\"tools/list\"") != NULL)
    result = "{\"tools\":[{\"name\":\"temperature\",\"inputSchema\":{\"type\":\"object\"}}]}";
  else if (strstr(message, "\"tools/call\"") != NULL)
    result = "{\"content\":[{\"type\":\"text\",\"text\":\"21 degrees\"}]}";
  length = snprintf(answer, sizeof answer, "{\"jsonrpc\":\"2.0\",%.*s,\"result\":%s}", (int)strcspn(id, ",}"), id, result);
  mcpgw_channel_deliver(connection, answer, (size_t)length);
}

static void close_weather(void *connection) { mcpgw_channel_free(connection); }

/* --- the host --- */
static void die(const char *what, char *error) {
  fprintf(stderr, "%s: %s\n", what, error != NULL ? error : "failed");
  exit(1);
}

/* A REST call with the host's rights. The answer's first text of that member, or NULL. */
static char *admin(mcpgw_gateway *gateway, const char *user_id, const char *target, const char *body, const char *member) {
  char key[32], *answer = NULL, *error = NULL, *at;
  int status = 0;
  if (mcpgw_gateway_admin(gateway, user_id, strlen(user_id), "POST", 4, target, strlen(target), body, strlen(body), &status,
                          &answer, &error) != MCPGW_OK)
    die(target, error);
  if (status >= 300) die(target, answer);
  snprintf(key, sizeof key, "\"%s\":\"", member);
  at = strstr(answer, key);
  if (at == NULL) die(member, answer);
  at += strlen(key);
  at[strcspn(at, "\"")] = '\0';
  memmove(answer, at, strlen(at) + 1);
  return answer; /* mcpgw_free() */
}

int main(void) {
  static const char options[] = "{\"logging\":{\"level\":\"warn\"}}"; /* in memory, with secrets that are made up */
  static const char call[] =
      "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"temperature\",\"arguments\":{},\"_meta\":{"
      "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{},"
      "\"io.modelcontextprotocol/clientInfo\":{\"name\":\"c_host\",\"version\":\"1\"}}}}";
  mcpgw_upstream_callbacks weather = {0};
  mcpgw_gateway_parts parts = {0};
  mcpgw_request request = {0};
  mcpgw_gateway *gateway = NULL;
  mcpgw_response *response = NULL;
  char authorization[1024], body[256], *error = NULL, *alice, *token;

  weather.struct_size = sizeof weather;
  weather.connect = connect_weather;
  weather.send = send_weather;
  weather.close = close_weather;
  parts.struct_size = sizeof parts;
  parts.upstream = &weather;
  if (mcpgw_gateway_create(options, sizeof options - 1, &parts, &gateway, &error) != MCPGW_OK) die("gateway", error);

  alice = admin(gateway, "", "/api/users", "{\"email\":\"alice@example.org\",\"password\":\"a-long-password\"}", "id");
  mcpgw_free(admin(gateway, "", "/api/targets",
                   "{\"name\":\"weather\",\"transport_type\":\"streamable-http\",\"url\":\"http://in-process.invalid/mcp\"}", "id"));
  snprintf(body, sizeof body,
           "{\"name\":\"alice\",\"effect\":\"allow\",\"subjects\":[{\"subject_type\":\"user\",\"subject_value\":\"%s\"}]}", alice);
  mcpgw_free(admin(gateway, "", "/api/policies", body, "id"));
  token = admin(gateway, alice, "/api/auth/tokens", "{\"name\":\"c_host\"}", "token");

  {
    snprintf(authorization, sizeof authorization, "Bearer %s", token);
    const mcpgw_header headers[] = {{"Authorization", 13, authorization, strlen(authorization)},
                                    {"Content-Type", 12, "application/json", 16},
                                    {"Accept", 6, "application/json, text/event-stream", 35},
                                    {"MCP-Protocol-Version", 20, "2026-07-28", 10},
                                    {"Mcp-Method", 10, "tools/call", 10},
                                    {"Mcp-Name", 8, "temperature", 11}};
    request.struct_size = sizeof request;
    request.method = "POST";
    request.method_size = 4;
    request.target = "/mcp";
    request.target_size = 4;
    request.headers = headers;
    request.header_count = sizeof headers / sizeof headers[0];
    request.body = call;
    request.body_size = sizeof call - 1;
    if (mcpgw_gateway_handle(gateway, &request, 0, &response, &error) != MCPGW_OK) die("call", error);
  }
  printf("alice: %s\n", mcpgw_response_body(response, NULL));
  mcpgw_response_free(response);
  mcpgw_free(alice);
  mcpgw_free(token);
  mcpgw_gateway_free(gateway);
  return 0;
}
