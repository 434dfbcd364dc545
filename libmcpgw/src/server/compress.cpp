#include "server/compress.hpp"

#include <zlib.h>

#include <algorithm>

#include "base/text.hpp"

namespace mcpgw::detail::server {
namespace {

constexpr int kLevel = 1;             // JSON shrinks to a few per cent more than at 6, in a third of the time
constexpr int kGzipWindow = 15 + 16;  // 16: gzip's frame

}  // namespace

bool may_compress(const HttpResponse& response) {
  if (response.body.size() < kCompressFrom) return false;
  const std::string* type = response.header("Content-Type");
  if (type == nullptr || !is_json_type(*type)) return false;
  if (response.header("Content-Encoding") != nullptr || response.header("ETag") != nullptr) return false;
  const std::string* cache = response.header("Cache-Control");
  return cache == nullptr || to_lower(*cache).find("no-transform") == std::string::npos;
}

void compress(HttpResponse& response) {
  z_stream stream{};
  if (::deflateInit2(&stream, kLevel, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) != Z_OK) return;
  // No larger than the body: beyond that the plain one is sent.
  std::string out(response.body.size(), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(response.body.data());
  stream.avail_in = static_cast<uInt>(response.body.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  const int result = response.body.size() > UINT32_MAX / 2 ? Z_BUF_ERROR : ::deflate(&stream, Z_FINISH);
  const std::size_t size = stream.total_out;
  ::deflateEnd(&stream);
  if (result != Z_STREAM_END) return;
  out.resize(size);
  out.shrink_to_fit();
  response.body = std::move(out);
  response.headers.emplace_back("Content-Encoding", "gzip");
}

}  // namespace mcpgw::detail::server
