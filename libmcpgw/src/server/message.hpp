// The bytes of answers.
#pragma once

#include <string>
#include <string_view>

#include "mcpgw/http.hpp"

namespace mcpgw::detail::server {

const char* reason_phrase(int status) noexcept;

/// How the body of an answer is delimited.
enum class BodyForm { sized, chunked, until_close };

struct AnswerForm {
  BodyForm body = BodyForm::sized;
  bool http11 = true;  ///< of the request
  bool close = false;  ///< the connection ends with this answer
  bool head = false;   ///< the request's method was HEAD
  bool gzip = false;   ///< the client takes gzip
};

/// Whether an answer of this status to this kind of request has a body at all.
bool has_body(int status, bool head) noexcept;

/// Status line, headers and the blank line; room for `extra` more bytes is reserved. Headers that frame the
/// message are ours; a header that could break out of its line is left out.
std::string render_head(const HttpResponse& response, const AnswerForm& form, std::size_t extra = 0);

/// The head of the 101 that makes a connection a WebSocket.
std::string render_upgrade(const HttpHeaders& headers, std::string_view accept);

/// An answer the server makes itself: the common error body.
HttpResponse server_error(int status, std::string_view code, std::string_view message,
                          std::string_view request_id);

/// The client's id when it is fit to be repeated, else a new one.
std::string request_id_for(std::string_view offered);

}  // namespace mcpgw::detail::server
