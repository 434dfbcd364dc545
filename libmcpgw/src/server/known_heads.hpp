// KnownHeads: heads that were read before, found by their bytes. A client says the same with each request but
// for the length of its body, and comparing costs a tenth of reading it anew.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/http.hpp"
#include "server/framing.hpp"

namespace mcpgw::detail::server {

struct KnownHead {
  std::string bytes;
  RequestReader::Head head;       ///< what the reader made of it
  HttpRequest request;            ///< and the parser; no body
  std::size_t length_header = 0;  ///< where its headers have Content-Length, if at all
  bool gzip = false;              ///< accepts_gzip() of it
  std::uint64_t print = 0;
  bool recent = false;  ///< of two that share a place the one found last
};

/// Not thread-safe: one for each loop.
class KnownHeads {
 public:
  /// The head that `data` begins with, word for word but for the digits of a Content-Length of as many
  /// digits. nullptr: it is not known. Valid until keep().
  const KnownHead* find(std::string_view data) noexcept;
  /// What was read from these bytes, once they come for the second time.
  void keep(std::string_view bytes, const RequestReader::Head& head, const HttpRequest& request, bool gzip);

 private:
  static constexpr std::size_t kPlaces = 1024;  // in pairs
  static constexpr std::size_t kSeen =
      8192;  // clients that take turns must not efface each other's first time

  std::unique_ptr<KnownHead>* pair_of(std::uint64_t print) noexcept {
    return &places_[static_cast<std::size_t>(print % (kPlaces / 2)) * 2];
  }

  std::vector<std::unique_ptr<KnownHead>> places_{kPlaces};
  std::vector<std::uint32_t> seen_ = std::vector<std::uint32_t>(kSeen);  ///< of prints
};

}  // namespace mcpgw::detail::server
