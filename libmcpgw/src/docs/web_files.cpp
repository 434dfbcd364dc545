#include "docs/web_files.hpp"

#include <algorithm>

#include "base/accept_encoding.hpp"
#include "base/text.hpp"

namespace mcpgw::detail {
namespace {

constexpr std::size_t kVersionLength = 16;

/// Whether an If-None-Match names `tag`; compared weakly (RFC 9110 13.1.2).
bool names(std::string_view header, std::string_view tag) {
  if (trim(header) == "*") return true;
  for (const std::string& element : split(header, ',')) {
    std::string_view one = trim(element);
    if (one.starts_with("W/")) one.remove_prefix(2);
    if (one == tag) return true;
  }
  return false;
}

}  // namespace

WebFiles::WebFiles(const std::vector<WebFile>& files) {
  for (const WebFile& file : files) add(file);
}

void WebFiles::add(WebFile file) {
  std::string version = to_hex(sha256(file.bytes)).substr(0, kVersionLength);
  entries_.push_back({std::move(file), std::move(version)});
}

const WebFiles::Entry* WebFiles::find(std::string_view path) const noexcept {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.file.path == path; });
  return found == entries_.end() ? nullptr : &*found;
}

HttpResponse WebFiles::answer(const HttpRequest& request) const {
  HttpResponse response;
  const Entry* entry = find(request.path());
  if (entry == nullptr) {
    response.status = 404;
    return response;
  }
  const WebFile& file = entry->file;
  const bool compressed = !file.gzip.empty() && accepts_gzip(request.headers);
  // A tag for each encoding: a strong one promises the same bytes.
  const std::string tag = "\"" + entry->version + (compressed ? "-gzip\"" : "\"");
  // Who asks with the version of the bytes may keep them for ever; everybody else asks again, and gets 304.
  const bool pinned = file.immutable || query_value(request.query(), "v") == entry->version;
  response.headers = {{"Cache-Control", pinned ? "public, max-age=31536000, immutable" : "no-cache"},
                      {"ETag", tag}};
  if (!file.gzip.empty()) response.headers.emplace_back("Vary", "Accept-Encoding");
  const std::string* known = request.header("If-None-Match");
  if (known != nullptr && names(*known, tag)) {
    response.status = 304;
    return response;
  }
  response.headers.emplace_back("Content-Type", file.content_type);
  if (compressed) response.headers.emplace_back("Content-Encoding", "gzip");
  response.headers.insert(response.headers.end(), file.headers.begin(), file.headers.end());
  response.body = compressed ? file.gzip : file.bytes;
  return response;
}

}  // namespace mcpgw::detail
