// HttplibParser: cpp-httplib as the parser of request heads that RequestReader has already delimited.
//
// httplib reads from memory and never sees a socket or a body. What its versions are known to change or
// refuse (escapes in header values, empty and long values, ranges, unusual methods) is kept from it and put
// into the request as received; docs/server.md lists it.
#pragma once

#include <memory>

#include "mcpgw/http.hpp"
#include "server/framing.hpp"
#include "server/known_heads.hpp"

namespace mcpgw::detail::server {

/// Not thread-safe: one for each loop.
class HttplibParser {
 public:
  HttplibParser();
  ~HttplibParser();
  HttplibParser(const HttplibParser&) = delete;
  HttplibParser& operator=(const HttplibParser&) = delete;

  /// What `data` begin with, if it was parsed before: for RequestReader::feed() and parse(), which then have
  /// little to do.
  const KnownHead* recall(std::string_view data) noexcept { return known_.find(data); }
  /// Fills method, target, headers and body of `out` from a complete request, and says whether it
  /// accepts_gzip(). False when httplib refuses it. `known`: what recall() said of it, if all of it came
  /// then.
  bool parse(RequestReader& reader, HttpRequest& out, bool& gzip, const KnownHead* known = nullptr);

 private:
  class Engine;
  std::unique_ptr<Engine> engine_;
  KnownHeads known_;
};

}  // namespace mcpgw::detail::server
