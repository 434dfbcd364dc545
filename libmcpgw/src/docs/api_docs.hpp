// The pages below /docs: the OpenAPI document, and the Scalar API reference (or a plain page) that shows it.
// All of it is in memory; nothing is loaded from another host.
#pragma once

#include <string>
#include <string_view>

#include "docs/web_files.hpp"

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
  bool has(std::string_view path) const noexcept { return files_.has(path); }
  /// The answer to a GET or HEAD of a path that it has.
  HttpResponse answer(const HttpRequest& request) const { return files_.answer(request); }

 private:
  std::string page_;  ///< that of Scalar, when there is a script
  WebFiles files_;
};

}  // namespace mcpgw::detail
