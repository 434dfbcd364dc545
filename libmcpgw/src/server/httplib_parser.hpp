// HttplibParser: cpp-httplib as the parser of request heads that RequestReader has already delimited.
//
// httplib reads from memory and never sees a socket or a body. What its versions are known to change or
// refuse (escapes in header values, empty and long values, ranges, unusual methods) is kept from it and put
// into the request as received; docs/server.md lists it.
#pragma once

#include <memory>

#include "mcpgw/http.hpp"
#include "server/framing.hpp"

namespace mcpgw::detail::server {

/// Not thread-safe: one for each loop.
class HttplibParser {
 public:
  HttplibParser();
  ~HttplibParser();
  HttplibParser(const HttplibParser&) = delete;
  HttplibParser& operator=(const HttplibParser&) = delete;

  /// Fills method, target, headers and body of `out` from a complete request. False when httplib refuses it.
  bool parse(RequestReader& reader, HttpRequest& out);

 private:
  class Engine;
  std::unique_ptr<Engine> engine_;
};

}  // namespace mcpgw::detail::server
