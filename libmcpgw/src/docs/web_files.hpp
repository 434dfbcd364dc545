// Files that are in memory, over HTTP: which encoding, for how long, and not again when the client has them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/gateway.hpp"

namespace mcpgw::detail {

/// Not changed once requests come; then safe from any thread.
class WebFiles {
 public:
  WebFiles() = default;
  explicit WebFiles(const std::vector<WebFile>& files);

  /// The bytes of `file` must outlive this.
  void add(WebFile file);
  /// Changes with the bytes of a path that it has.
  const std::string& version(std::string_view path) const noexcept { return find(path)->version; }
  bool has(std::string_view path) const noexcept { return find(path) != nullptr; }
  /// The answer to a GET or HEAD. 404 for a path that it does not have.
  HttpResponse answer(const HttpRequest& request) const;

 private:
  struct Entry {
    WebFile file;
    std::string version;
  };
  const Entry* find(std::string_view path) const noexcept;

  std::vector<Entry> entries_;
};

}  // namespace mcpgw::detail
