/* mcpgw.h: the C interface of mcpgw, C99, in libmcpgw_c. It is the only binary promise of the project.
 *
 * Conventions
 *  1. Handles are opaque. Whoever gets one by an `out` parameter or as a result owns it and gives it to its
 *     *_free function, once. Every *_free takes NULL.
 *  2. Functions that can fail return a status. `out_error`, always last, may be NULL; else it is set to NULL or
 *     to a JSON object {"code","reason","message","field"} that mcpgw_free() frees. `reason` is a stable word
 *     for programs, `message` a sentence for people; neither holds a secret. After a failure `out`
 *     parameters are NULL.
 *  3. Texts go in as pointer and length and need no terminating zero; they are copied, unless told
 *     otherwise. Texts that come out by `char **` end with a zero and are freed by mcpgw_free().
 *  4. Configuration and records are JSON texts, so that new options do not change this interface. An unknown
 *     option is an error, never ignored.
 *  5. Structs begin with `struct_size`, which the caller sets to sizeof; they only grow, at their end.
 *  6. Every function may be called from any thread. Functions that say "blocks" wait for I/O or for callbacks,
 *     and must not be called from inside a callback.
 *  7. Callbacks come on threads of the library. `user_data` is handed to each; `destroy` is called once, when
 *     no other callback with it is running or will come. A callback must not let a C++ exception or a
 *     longjmp out.
 *  8. "since" names the version that brought a function. Nothing is removed within a SOVERSION.
 */
#ifndef MCPGW_MCPGW_H
#define MCPGW_MCPGW_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

/* The text between the two markers is plain C without preprocessor: language bindings read it.
 * [declarations] */

/* Values above the last one may come with later versions: treat them as MCPGW_INTERNAL. */
typedef enum mcpgw_status {
  MCPGW_OK = 0,
  MCPGW_INVALID_ARGUMENT = 1,    /* the caller's input is malformed or out of range */
  MCPGW_UNAUTHENTICATED = 2,     /* no or invalid credentials */
  MCPGW_PERMISSION_DENIED = 3,   /* authenticated, but not permitted */
  MCPGW_NOT_FOUND = 4,           /* does not exist, or the caller may not see it */
  MCPGW_CONFLICT = 5,            /* the stored state contradicts the write */
  MCPGW_PRECONDITION_FAILED = 6, /* the expected version is not the stored one */
  MCPGW_UNAVAILABLE = 7,         /* a dependency is away; trying again may help */
  MCPGW_DEADLINE_EXCEEDED = 8,   /* the time limit was reached */
  MCPGW_CANCELLED = 9,           /* the caller gave up */
  MCPGW_RESOURCE_EXHAUSTED = 10, /* a limit was reached */
  MCPGW_UNSUPPORTED = 11,        /* not offered here */
  MCPGW_DATA_LOSS = 12,          /* stored data is damaged or cannot be decrypted */
  MCPGW_INTERNAL = 13            /* a fault of mcpgw itself */
} mcpgw_status;

/* --- the library ---------------------------------------------------------------------------------------- */

/* major * 1000000 + minor * 1000 + patch of the library that is loaded. since 0.1 */
uint32_t mcpgw_version_number(void);
/* "0.1.0"; lives as long as the library. since 0.1 */
const char *mcpgw_version(void);
/* "not_found", ...; lives as long as the library. since 0.1 */
const char *mcpgw_status_name(mcpgw_status status);
/* Frees a text that a function gave out. since 0.1 */
void mcpgw_free(char *text);

/* What a callback answers with; valid until the callback returns. */
typedef struct mcpgw_reply mcpgw_reply;
/* Sets the answer; called again, it replaces. After a status other than MCPGW_OK it is an error's JSON object,
 * of which every member may be missing. since 0.1 */
void mcpgw_reply_set(mcpgw_reply *reply, const char *text, size_t size);

/* --- storage of one's own --------------------------------------------------------------------------------- */

/* Keeps records (collection, key) -> JSON text with a version; the rules are those of docs/storage.md. Callbacks
 * come from several threads at once and may block. A record is {"collection","key","value","version"}; `value` is a
 * JSON text as a string, to be kept as it is. */
typedef struct mcpgw_storage_callbacks {
  uint32_t struct_size;
  void *user_data;
  void (*destroy)(void *user_data); /* may be NULL */
  /* Answers with a record or `null`. */
  mcpgw_status (*get)(void *user_data, const char *collection, size_t collection_size, const char *key,
                      size_t key_size, mcpgw_reply *reply);
  /* Answers with an array of records whose key begins with `prefix` and is greater than `after`, in ascending
   * byte order of keys, at most `limit` (0: all). */
  mcpgw_status (*list)(void *user_data, const char *collection, size_t collection_size, const char *prefix,
                       size_t prefix_size, const char *after, size_t after_size, uint64_t limit,
                       mcpgw_reply *reply);
  /* `operations`: an array of {"op":"check"|"put"|"erase","collection","key","value" (put),"expected_version"
   * (0: must not exist; missing: no condition)}. All conditions are judged first, then all writes are made, or
   * none. Answers with an array of the new versions, 0 for check and erase, `null` for an erase that found
   * nothing; or MCPGW_CONFLICT. One at a time. */
  mcpgw_status (*commit)(void *user_data, const char *operations, size_t size, mcpgw_reply *reply);
  /* Whether the backend answers now. NULL: always. */
  mcpgw_status (*ping)(void *user_data, mcpgw_reply *reply);
} mcpgw_storage_callbacks;

typedef struct mcpgw_storage mcpgw_storage;
/* What stands on it needs option encryption.key: credentials are sealed with it, and only the same key opens them
 * after a restart. since 0.1 */
mcpgw_status mcpgw_storage_create(const mcpgw_storage_callbacks *callbacks, mcpgw_storage **out, char **out_error);
/* Keeps records in memory; they end with the last handle that uses them, as does the key that is made up unless
 * encryption.key is given. since 0.1 */
mcpgw_status mcpgw_storage_create_memory(mcpgw_storage **out, char **out_error);
/* Tells that another process has written: an array of {"collection","key","version" (0: erased)}; an empty one
 * when changes may have been missed. Only for storages of mcpgw_storage_create(); own commits are known.
 * Blocks; not from inside a storage callback. since 0.1 */
mcpgw_status mcpgw_storage_changed(mcpgw_storage *storage, const char *changes, size_t size, char **out_error);
/* Gateways and repositories that use it keep it alive. since 0.1 */
void mcpgw_storage_free(mcpgw_storage *storage);

/* --- MCP servers inside the host ---------------------------------------------------------------------------- */

/* The library's end of a connection to an MCP server that the host keeps. */
typedef struct mcpgw_channel mcpgw_channel;

typedef struct mcpgw_upstream_callbacks {
  uint32_t struct_size;
  void *user_data;
  void (*destroy)(void *user_data); /* may be NULL */
  /* A connection is wanted. `parameters`: {"target":{"id","name","slug","transport_type","url","command","args"},
   * "principal_user_id" (empty: shared),"env":{},"credential"}; the last two are secret. MCPGW_OK: it is there,
   * `*connection` is handed to send and close, and `channel` belongs to the host until mcpgw_channel_free().
   * MCPGW_UNSUPPORTED: not a server of the host, the built-in transports shall try. After any status but
   * MCPGW_OK `channel` is gone. May block. */
  mcpgw_status (*connect)(void *user_data, const char *parameters, size_t size, mcpgw_channel *channel,
                          void **connection, mcpgw_reply *reply);
  /* One JSON-RPC message for the server. One at a time for a connection, in order; the next one waits for its
   * return. mcpgw_channel_deliver() may be called from inside. */
  void (*send)(void *connection, const char *message, size_t size);
  /* The last callback of a connection, exactly once for each that was opened. */
  void (*close)(void *connection);
} mcpgw_upstream_callbacks;

/* One JSON-RPC message of the server. Does not block. MCPGW_UNAVAILABLE: the connection is over. since 0.1 */
mcpgw_status mcpgw_channel_deliver(mcpgw_channel *channel, const char *message, size_t size);
/* The server has gone; close follows. since 0.1 */
void mcpgw_channel_end(mcpgw_channel *channel);
/* since 0.1 */
void mcpgw_channel_free(mcpgw_channel *channel);

/* --- log ------------------------------------------------------------------------------------------------------ */

typedef enum mcpgw_log_level {
  MCPGW_LOG_TRACE = 0,
  MCPGW_LOG_DEBUG = 1,
  MCPGW_LOG_INFO = 2,
  MCPGW_LOG_WARN = 3,
  MCPGW_LOG_ERROR = 4
} mcpgw_log_level;

typedef struct mcpgw_log_callbacks {
  uint32_t struct_size;
  void *user_data;
  void (*destroy)(void *user_data); /* may be NULL */
  /* `event`: {"level","module","message","fields":{}}, never a secret. Lines below option logging.level do not
   * come. One at a time, in order; must not block for long. */
  void (*log)(void *user_data, mcpgw_log_level level, const char *event, size_t size);
} mcpgw_log_callbacks;

/* --- gateway ---------------------------------------------------------------------------------------------------- */

/* What a gateway is made of besides its options. Any pointer may be NULL. */
typedef struct mcpgw_gateway_parts {
  uint32_t struct_size;
  mcpgw_storage *storage; /* NULL: option database.url, else memory */
  const mcpgw_upstream_callbacks *upstream;
  const mcpgw_log_callbacks *log;
} mcpgw_gateway_parts;

typedef struct mcpgw_gateway mcpgw_gateway;
/* `options`: a JSON object of the keys of docs/configuration.md, such as {"jwt":{"secret":"..."}}; of empty size:
 * none. Unlike the program it keeps everything in memory unless database.url or a storage is given, starts no
 * processes unless stdio.enabled, and reads no file and no environment variable. `parts` may be NULL.
 * Blocks. since 0.1 */
mcpgw_status mcpgw_gateway_create(const char *options, size_t size, const mcpgw_gateway_parts *parts,
                                  mcpgw_gateway **out, char **out_error);
/* Stops taking requests, lets running ones end for at most `grace_ms`, ends upstreams, writes the audit log.
 * Blocks. since 0.1 */
void mcpgw_gateway_close(mcpgw_gateway *gateway, uint32_t grace_ms);
/* Closes without grace and frees. What was made of it may be used on and freed later. Blocks. since 0.1 */
void mcpgw_gateway_free(mcpgw_gateway *gateway);

typedef struct mcpgw_header {
  const char *name;
  size_t name_size;
  const char *value;
  size_t value_size;
} mcpgw_header;

typedef struct mcpgw_request {
  uint32_t struct_size;
  const char *method;
  size_t method_size;
  const char *target; /* path and query as on the request line: "/mcp" */
  size_t target_size;
  const mcpgw_header *headers;
  size_t header_count;
  const char *body;
  size_t body_size;
  const char *remote_address; /* of the client, no port; NULL: 127.0.0.1 */
  size_t remote_address_size;
  int over_tls;
} mcpgw_request;

typedef struct mcpgw_response mcpgw_response;
/* since 0.1 */
int mcpgw_response_status(const mcpgw_response *response);
/* since 0.1 */
size_t mcpgw_response_header_count(const mcpgw_response *response);
/* Its pointers are valid as long as the response; all zero beyond the last one. since 0.1 */
mcpgw_header mcpgw_response_header(const mcpgw_response *response, size_t index);
/* Valid as long as the response; ends with a zero that is not counted. since 0.1 */
const char *mcpgw_response_body(const mcpgw_response *response, size_t *size);
/* since 0.1 */
void mcpgw_response_free(mcpgw_response *response);

/* Answers one request; a streamed answer is collected until its end, or until `deadline_ms` (0: two minutes)
 * has passed. The status tells whether there is an answer; refusals are answers. Blocks. since 0.1 */
mcpgw_status mcpgw_gateway_handle(mcpgw_gateway *gateway, const mcpgw_request *request, uint32_t deadline_ms,
                                  mcpgw_response **out, char **out_error);

/* How an answer arrives piece by piece. One callback at a time; may block, but a client that leaves more than
 * 8 MiB waiting is dropped. */
typedef struct mcpgw_answer_callbacks {
  uint32_t struct_size;
  void *user_data;
  /* First, once. `streamed`: the end is not known yet. Pointers are valid until it returns. */
  void (*on_head)(void *user_data, int status, const mcpgw_header *headers, size_t header_count, int streamed);
  /* A part of the body. Other than 0: the client is gone, see mcpgw_call_cancel(). */
  int (*on_data)(void *user_data, const char *data, size_t size);
  /* Last, exactly once. `complete` is 0 when the answer was cut off or cancelled. */
  void (*on_end)(void *user_data, int complete);
} mcpgw_answer_callbacks;

typedef struct mcpgw_call mcpgw_call;
/* Does not block. Callbacks may come before it returns; none comes when it fails. `out` may be NULL.
 * since 0.1 */
mcpgw_status mcpgw_gateway_handle_async(mcpgw_gateway *gateway, const mcpgw_request *request,
                                        const mcpgw_answer_callbacks *callbacks, mcpgw_call **out,
                                        char **out_error);
/* The client has gone: what works for it is cancelled, on_end follows. No effect afterwards. since 0.1 */
void mcpgw_call_cancel(mcpgw_call *call);
/* Does not cancel. since 0.1 */
void mcpgw_call_free(mcpgw_call *call);

/* The REST API (docs/rest-api.md) with the rights of an administrator: whoever holds the gateway is one. `user_id`:
 * the user for whose sake it is done, as in creating one's own API token; of size 0: nobody's. `out_status` gets
 * the HTTP status and `out_body` the body, also of refusals; fails only when there is no answer.
 * Blocks. since 0.1 */
mcpgw_status mcpgw_gateway_admin(mcpgw_gateway *gateway, const char *user_id, size_t user_id_size,
                                 const char *method, size_t method_size, const char *target, size_t target_size,
                                 const char *body, size_t body_size, int *out_status, char **out_body,
                                 char **out_error);

/* --- server ----------------------------------------------------------------------------------------------------- */

typedef struct mcpgw_server mcpgw_server;
/* Listens when it returns. `options` go over those of the gateway: {"server":{"host","port","tls":{...}}}. Without
 * any: 127.0.0.1 and a free port. Blocks. since 0.1 */
mcpgw_status mcpgw_server_start(mcpgw_gateway *gateway, const char *options, size_t size, mcpgw_server **out,
                                char **out_error);
/* since 0.1 */
int mcpgw_server_port(const mcpgw_server *server);
/* "http://127.0.0.1:3000"; lives as long as the server. since 0.1 */
const char *mcpgw_server_url(const mcpgw_server *server);
/* Takes no further connections and ends those that are idle; running ones may end. since 0.1 */
void mcpgw_server_drain(mcpgw_server *server);
/* Ends all connections. Blocks. since 0.1 */
void mcpgw_server_stop(mcpgw_server *server);
/* Stops and frees. Blocks. since 0.1 */
void mcpgw_server_free(mcpgw_server *server);

/* --- users, targets, policies and credentials without a gateway ---------------------------------------------------- */

typedef struct mcpgw_repository mcpgw_repository;
/* Starts no thread. Of the options those of database, encryption, jwt, auth, stdio and limits have an effect here;
 * `storage` as in mcpgw_gateway_parts. Blocks. since 0.1 */
mcpgw_status mcpgw_repository_open(const char *options, size_t size, mcpgw_storage *storage,
                                   mcpgw_repository **out, char **out_error);
/* That of a gateway: the same memory. since 0.1 */
mcpgw_status mcpgw_gateway_repository(mcpgw_gateway *gateway, mcpgw_repository **out, char **out_error);
/* As mcpgw_gateway_admin(), without what needs live traffic. Blocks. since 0.1 */
mcpgw_status mcpgw_repository_admin(mcpgw_repository *repository, const char *user_id, size_t user_id_size,
                                    const char *method, size_t method_size, const char *target,
                                    size_t target_size, const char *body, size_t body_size, int *out_status,
                                    char **out_body, char **out_error);
/* What was made of it may be used on. since 0.1 */
void mcpgw_repository_free(mcpgw_repository *repository);

/* A question is {"user": id or email, "target": id or name, ...}. Instead of "user" it may hold "principal":
 * {"user_id","role","groups"}, somebody who need not be stored. */

typedef struct mcpgw_policy_engine mcpgw_policy_engine;
/* since 0.1 */
mcpgw_status mcpgw_policy_engine_create(mcpgw_repository *repository, mcpgw_policy_engine **out, char **out_error);
/* A question with "type": "tool", "resource" or "prompt", and "name". Answers {"allowed","effect","reason",
 * "policy_id","policy_name"}, with "explain": true also "considered". A deny is an answer, not an error; so is
 * whoever or whatever is not known. Reads memory only. since 0.1 */
mcpgw_status mcpgw_policy_engine_evaluate(mcpgw_policy_engine *engine, const char *question, size_t size,
                                          char **out, char **out_error);
/* since 0.1 */
void mcpgw_policy_engine_free(mcpgw_policy_engine *engine);

typedef struct mcpgw_token_resolver mcpgw_token_resolver;
/* since 0.1 */
mcpgw_status mcpgw_token_resolver_create(mcpgw_repository *repository, mcpgw_token_resolver **out,
                                         char **out_error);
/* Which stored credential the user's calls to the target carry: {"value" (secret),"scope","scope_value",
 * "from_env"}, or `null`. MCPGW_DATA_LOSS: the call must be refused. since 0.1 */
mcpgw_status mcpgw_token_resolver_resolve(mcpgw_token_resolver *resolver, const char *question, size_t size,
                                          char **out, char **out_error);
/* since 0.1 */
void mcpgw_token_resolver_free(mcpgw_token_resolver *resolver);

typedef struct mcpgw_env_resolver mcpgw_env_resolver;
/* since 0.1 */
mcpgw_status mcpgw_env_resolver_create(mcpgw_repository *repository, mcpgw_env_resolver **out, char **out_error);
/* The environment of the user's calls to the target: {"values":{} (secret),"sources":[{"key","scope",
 * "scope_value"}]}. since 0.1 */
mcpgw_status mcpgw_env_resolver_resolve(mcpgw_env_resolver *resolver, const char *question, size_t size,
                                        char **out, char **out_error);
/* since 0.1 */
void mcpgw_env_resolver_free(mcpgw_env_resolver *resolver);

/* [declarations end] */

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

#endif /* MCPGW_MCPGW_H */
