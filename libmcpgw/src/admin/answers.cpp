#include "admin/answers.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/text.hpp"
#include "json/raw.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::int64_t kMaxPage = 1000;
constexpr std::int64_t kMaxOffset = 1000000000;
constexpr std::size_t kMaxQueryValue = 1000;  // code points
constexpr int kMaxAttempts = 40;

int status_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::invalid_argument:
      return 400;
    case ErrorCode::unauthenticated:
      return 401;
    case ErrorCode::permission_denied:
      return 403;
    case ErrorCode::not_found:
      return 404;
    case ErrorCode::conflict:
      return 409;
    case ErrorCode::precondition_failed:
      return 412;
    case ErrorCode::resource_exhausted:
      return 429;
    case ErrorCode::unsupported:
      return 400;
    case ErrorCode::unavailable:
      return 503;
    case ErrorCode::deadline_exceeded:
      return 504;
    case ErrorCode::cancelled:
    case ErrorCode::data_loss:
    case ErrorCode::internal:
      return 500;
  }
  return 500;
}

Error bad_query(std::string_view name, const std::string& what) {
  return {ErrorCode::invalid_argument, "invalid_request", std::string(name) + what, std::string(name)};
}

/// The path as we would write it: what a client sent goes into no header.
std::string own_path(const Call& call) {
  std::string out;
  for (const std::string& part : split(call.request.path().substr(1), '/'))
    out += "/" + percent_encode(percent_decode(part).value_or(""));
  return out;
}

HttpResponse busy() { return failure(503, "storage_unavailable", "Too many writes at once: try again"); }

}  // namespace

HttpResponse json_response(int status, const Json& value) {
  HttpResponse out;
  out.status = status;
  out.headers.emplace_back("Content-Type", "application/json");
  out.body = dump_json(value);
  return out;
}

HttpResponse no_content() {
  HttpResponse out;
  out.status = 204;
  return out;
}

HttpResponse failure(int status, std::string reason, std::string message, std::string field) {
  Json body{{"error", std::move(message)}, {"code", std::move(reason)}};
  if (!field.empty()) body["field"] = std::move(field);
  HttpResponse out = json_response(status, body);
  if (status == 429)
    out.headers.emplace_back("Retry-After", std::to_string(Authenticator::kRetryAfterSeconds));
  if (status == 503) out.headers.emplace_back("Retry-After", "5");
  return out;
}

HttpResponse failure(Call& call, const Error& error) {
  const int status = status_of(error);
  if (status == 500) {
    call.cause = error.reason + ": " + error.message;
    return failure(500, "internal", "Something went wrong inside the gateway");
  }
  if (error.code == ErrorCode::conflict && error.reason == "version_conflict") return busy();
  return failure(status, error.reason, error.message, error.field);
}

HttpResponse insufficient_scope(std::string_view scope, std::string message, std::string field) {
  HttpResponse out = failure(403, "insufficient_scope", std::move(message), std::move(field));
  out.headers.emplace_back(
      "WWW-Authenticate",
      R"(Bearer realm="mcpgw", error="insufficient_scope", scope=")" + std::string(scope) + "\"");
  return out;
}

HttpResponse object_response(int status, const Json& value, std::uint64_t version) {
  HttpResponse out = json_response(status, value);
  out.headers.emplace_back("ETag", "\"" + std::to_string(version) + "\"");
  return out;
}

HttpResponse list_response(Call& call, std::vector<Json> items) {
  const auto limit = query_number(call, "limit", 1, kMaxPage);
  if (!limit) return failure(call, limit.error());
  const auto offset = query_number(call, "offset", 0, kMaxOffset);
  if (!offset) return failure(call, offset.error());
  const std::size_t total = items.size();
  const std::size_t from = std::min(static_cast<std::size_t>(offset->value_or(0)), total);
  std::size_t count = std::min(std::max<std::size_t>(call.api.list_max, 1), total - from);
  if (*limit) count = std::min(count, static_cast<std::size_t>(**limit));
  Json page = Json::array();
  for (std::size_t i = from; i < from + count; ++i) page.push_back(std::move(items[i]));
  HttpResponse out = json_response(200, page);
  out.headers.emplace_back("X-Total-Count", std::to_string(total));
  if (from + count < total)
    out.headers.emplace_back(
        "Link", "<" + own_path(call) + "?limit=" +
                    std::to_string(std::clamp<std::size_t>(count, 1, static_cast<std::size_t>(kMaxPage))) +
                    "&offset=" + std::to_string(from + count) + ">; rel=\"next\"");
  return out;
}

Result<std::optional<std::uint64_t>> if_match(const Call& call, std::uint64_t current) {
  const std::string* header = call.request.header("If-Match");
  if (header == nullptr) return std::optional<std::uint64_t>();
  const std::string own = "\"" + std::to_string(current) + "\"";
  for (const std::string& tag : split(*header, ','))
    if (trim(tag) == "*" || trim(tag) == own) return std::optional<std::uint64_t>(current);
  return Error(ErrorCode::precondition_failed, "precondition_failed",
               "The object has changed since it was read: read it again");
}

std::optional<HttpResponse> check_id(std::string_view value) {
  if (is_uuid(value)) return std::nullopt;
  return failure(400, "invalid_id", "The id is not a UUID");
}

Result<std::optional<std::string>> query_text(const Call& call, std::string_view name) {
  for (const std::string& part : split(call.request.query(), '&')) {
    const auto equals = part.find('=');
    if (percent_decode(std::string_view(part).substr(0, equals)) != std::string(name)) continue;
    std::string text = equals == std::string::npos ? std::string() : part.substr(equals + 1);
    std::replace(text.begin(), text.end(), '+', ' ');
    auto value = percent_decode(text);
    if (!value || !is_utf8(*value) || has_control(*value)) return bad_query(name, " is malformed");
    if (utf8_length(*value) > kMaxQueryValue) return bad_query(name, " is too long");
    return std::optional(std::move(*value));
  }
  return std::optional<std::string>();
}

Result<std::optional<std::int64_t>> query_number(const Call& call, std::string_view name, std::int64_t low,
                                                 std::int64_t high) {
  const auto text = query_text(call, name);
  if (!text) return text.error();
  if (!*text) return std::optional<std::int64_t>();
  const auto number = raw::int_value(**text);
  if (!number || *number < low || *number > high)
    return bad_query(name, " must be between " + std::to_string(low) + " and " + std::to_string(high));
  return number;
}

HttpResponse merged_write(Call& call, Result<HttpResponse> (*attempt)(Call& call)) {
  const bool conditional = call.request.header("If-Match") != nullptr;
  for (int i = 0; i < kMaxAttempts; ++i) {
    auto result = attempt(call);
    if (result) return std::move(*result);
    if (conditional || result.error().code != ErrorCode::precondition_failed)
      return failure(call, result.error());
    // Another process' write takes a moment to arrive here.
    if (i > 2) std::this_thread::sleep_for(std::chrono::milliseconds(std::min(i, 10)));
  }
  return busy();
}

}  // namespace mcpgw::detail
