#include "api.hpp"

#include <strings.h>

namespace mcpgw::app {

namespace {

constexpr int kPage = 1000;
constexpr int kMaxPages = 10000;

ErrorCode code_of(int status) {
  switch (status) {
    case 400:
      return ErrorCode::invalid_argument;
    case 401:
      return ErrorCode::unauthenticated;
    case 403:
      return ErrorCode::permission_denied;
    case 404:
      return ErrorCode::not_found;
    case 409:
      return ErrorCode::conflict;
    case 412:
      return ErrorCode::precondition_failed;
    case 429:
    case 503:
      return ErrorCode::unavailable;
    default:
      return ErrorCode::internal;
  }
}

/// Bodies of anything that is not a gateway are not shown: they may be pages of a proxy.
Error error_of(const HttpResponse& response) {
  const auto body = Json::parse(response.body, nullptr, false);
  const auto text = [&](const char* name) {
    return body.is_object() && body.contains(name) && body[name].is_string() ? body[name].get<std::string>()
                                                                             : std::string();
  };
  Error error{code_of(response.status), text("code"), text("error"), text("field")};
  if (error.message.empty())
    error.message = "the server answered with status " + std::to_string(response.status);
  if (response.status == 401) error.message = "the server refuses the token: " + error.message;
  if (!error.field.empty() && error.message.find(error.field) == std::string::npos)
    error.message += " (" + error.field + ")";
  return error;
}

Error odd_answer() {
  return {ErrorCode::internal, "odd_answer", "The answer is not one of a gateway: is the URL right?"};
}

Error unknown(const char* what, const std::string& name) {
  return {ErrorCode::not_found, std::string(what) + "_not_found",
          "There is no " + std::string(what) + " " + name};
}

bool same(const std::string& a, const std::string& b) { return ::strcasecmp(a.c_str(), b.c_str()) == 0; }

}  // namespace

std::string encoded(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      out += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    out += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return out;
}

Result<HttpResponse> Api::exchange(const std::string& method, const std::string& path, const Json& body,
                                   const std::string& as_user) {
  auto authorization = backend_->authorization(as_user);
  if (!authorization) return authorization.error();
  HttpRequest request;
  request.method = method;
  request.target = path;
  request.headers.emplace_back("Authorization", std::move(*authorization));
  request.headers.emplace_back("Accept", "application/json");
  if (!body.is_null()) {
    request.headers.emplace_back("Content-Type", "application/json");
    request.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  auto response = backend_->send(std::move(request));
  if (!response) return response.error();
  if (response->status < 200 || response->status >= 300) return error_of(*response);
  return response;
}

Result<Json> Api::call(const std::string& method, const std::string& path, const Json& body,
                       const std::string& as_user) {
  auto response = exchange(method, path, body, as_user);
  if (!response) return response.error();
  if (response->body.empty()) return Json(nullptr);
  auto out = Json::parse(response->body, nullptr, false);
  if (out.is_discarded()) return odd_answer();
  return out;
}

Result<Json> Api::list(const std::string& path) {
  Json all = Json::array();
  for (int page = 0; page < kMaxPages; ++page) {
    auto part =
        call("GET", path + "?limit=" + std::to_string(kPage) + "&offset=" + std::to_string(page * kPage));
    if (!part) return part.error();
    if (!part->is_array()) return odd_answer();
    const bool last = part->size() < kPage;
    for (auto& one : *part) {
      if (!one.is_object()) return odd_answer();
      all.push_back(std::move(one));
    }
    if (last) break;
  }
  return all;
}

Result<Json> Api::user(const std::string& email) {
  auto all = list("/api/users");
  if (!all) return all.error();
  for (const auto& one : *all)
    if (same(cell(one, "email"), email) || cell(one, "id") == email) return one;
  return unknown("user", email);
}

Result<Json> Api::target(const std::string& name) {
  auto all = list("/api/targets");
  if (!all) return all.error();
  for (const auto& one : *all)
    if (same(cell(one, "name"), name) || cell(one, "id") == name) return one;
  return unknown("target", name);
}

Result<Json> Api::policy(const std::string& name) {
  auto all = list("/api/policies");
  if (!all) return all.error();
  Json found;
  for (const auto& one : *all) {
    if (cell(one, "id") == name) return one;
    if (cell(one, "name") != name) continue;
    if (!found.is_null())
      return Error{ErrorCode::conflict, "ambiguous",
                   "Several policies have the name " + name + ": give the id"};
    found = one;
  }
  if (found.is_null()) return unknown("policy", name);
  return found;
}

}  // namespace mcpgw::app
