// The pages below /docs: the OpenAPI document, and the Scalar API reference (or a plain page) that shows it.
// All of it is in memory; nothing is loaded from another host.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "mcpgw/http.hpp"

namespace mcpgw::detail {

/// Immutable; safe from any thread.
class ApiDocs {
 public:
  /// `script` is Scalar's browser bundle and `script_gzip` the same compressed; both must outlive this.
  /// Without `script` the page is a plain one; with an empty `script_gzip` the script is never sent
  /// compressed.
  ApiDocs(bool enabled, std::string_view script, std::string_view script_gzip);
  ApiDocs(const ApiDocs&) = delete;  // files point into it
  ApiDocs& operator=(const ApiDocs&) = delete;

  /// Whether there is something at this path.
  bool has(std::string_view path) const noexcept { return find(path) != nullptr; }
  /// The answer to a GET or HEAD of a path that it has.
  HttpResponse answer(const HttpRequest& request) const;

 private:
  struct File {
    std::string path;
    std::string type;
    std::string_view plain;
    std::string_view gzip;  ///< empty: only plain
    std::string version;    ///< changes with the bytes
  };
  void add(std::string path, std::string type, std::string_view plain, std::string_view gzip);
  const File* find(std::string_view path) const noexcept;

  std::string page_;  ///< that of Scalar, when there is a script
  std::vector<File> files_;
};

}  // namespace mcpgw::detail
