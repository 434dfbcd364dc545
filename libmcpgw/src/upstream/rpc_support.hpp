// What both kinds of upstream connection do alike: the parameters of requests, the reading of messages and of
// the answer to `initialize`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "protocol/message.hpp"
#include "upstream/upstream.hpp"

namespace mcpgw::detail {

/// `params` with _meta.progressToken set to `token` (raw JSON), or without one when `token` is empty.
std::string with_progress_token(std::string_view params, std::string_view token);

/// Params of `initialize`.
std::string initialize_params(const ClientFacts& client);

/// Reads the answer to `initialize`; upstream_protocol_error when it is none or the version is not ours.
Result<ServerFacts> read_initialize_result(const UpstreamAnswer& answer);

/// `params` of notifications/cancelled.
std::string cancelled_params(std::string_view request_id, std::string_view reason);

/// The answer to request `id` (raw JSON) that `text` is; nullopt for anything else. An error may lack the id.
std::optional<UpstreamAnswer> answer_to(std::string_view text, std::string_view id);

/// Whose answer was too large to be read, by its first and last bytes: the id stands at one of its ends, in
/// the two orders that servers write. nullopt when it cannot be told.
std::optional<std::int64_t> dropped_answer_id(std::string_view head, std::string_view tail);

Error protocol_error(std::string message);
Error closed_error(std::string message);
/// The server forgot the session, and has not acted on what it answered so to.
Error session_lost_error();

/// Whether Content-Type is `type`, whatever its parameters.
bool is_media_type(const HttpHeaders& headers, std::string_view type);
/// What a status other than success says about a request that got no answer. Names no address.
Error http_status_error(int status);

}  // namespace mcpgw::detail
