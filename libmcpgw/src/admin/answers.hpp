// How handlers answer, and what of a request's head they ask about.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "admin/router.hpp"

namespace mcpgw::detail {

HttpResponse json_response(int status, const Json& value);
HttpResponse no_content();
/// The status that belongs to the error. What is our own fault is told to the log alone.
HttpResponse failure(Call& call, const Error& error);
HttpResponse failure(int status, std::string reason, std::string message, std::string field = {});
/// 403 for a token that lacks `scope`, with the challenge that says so.
HttpResponse insufficient_scope(std::string_view scope, std::string message, std::string field = {});
/// A list, cut by ?limit= and ?offset=, with X-Total-Count and Link.
HttpResponse list_response(Call& call, std::vector<Json> items);
/// A single object with its ETag.
HttpResponse object_response(int status, const Json& value, std::uint64_t version);

/// The version that If-Match names; an Error 412 when it is not `current`. nullopt: no condition.
Result<std::optional<std::uint64_t>> if_match(const Call& call, std::uint64_t current);
/// A path value that must be a UUID: 400 "invalid_id".
std::optional<HttpResponse> check_id(std::string_view value);

/// A query parameter, decoded; nullopt when absent. 400 with its name when it is malformed.
Result<std::optional<std::string>> query_text(const Call& call, std::string_view name);
/// The same for an integer from `low` to `high`.
Result<std::optional<std::int64_t>> query_number(const Call& call, std::string_view name, std::int64_t low,
                                                 std::int64_t high);

/// Writes what a request changes over what is stored, member by member. `attempt(first)` reads, merges and
/// writes under the version it read. Without If-Match the last write wins for the members it sent, and the
/// others keep what another writer has given them meanwhile: the attempt is then made again.
HttpResponse merged_write(Call& call, Result<HttpResponse> (*attempt)(Call& call));

}  // namespace mcpgw::detail
