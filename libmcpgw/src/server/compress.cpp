#include "server/compress.hpp"

#include <zlib.h>

#include <algorithm>

#include "base/text.hpp"

namespace mcpgw::detail::server {
namespace {

constexpr int kLevel = 1;             // JSON shrinks to a few per cent more than at 6, in a third of the time
constexpr int kGzipWindow = 15 + 16;  // 16: gzip's frame

/// The weight of one element's parameters in thousandths (RFC 9110 12.4.2); what is malformed weighs nothing.
int weight(std::string_view parameters) {
  parameters = trim(parameters);
  if (parameters.empty()) return 1000;
  if (!starts_with_icase(parameters, "q=")) return 0;
  const std::string_view digits = parameters.substr(2);
  if (digits.empty() || digits.size() > 5 || (digits[0] != '0' && digits[0] != '1')) return 0;
  if (digits.size() > 1 && digits[1] != '.') return 0;
  int value = (digits[0] - '0') * 1000;
  int unit = 100;
  for (const char c : digits.substr(std::min<std::size_t>(digits.size(), 2))) {
    if (c < '0' || c > '9') return 0;
    value += (c - '0') * unit;
    unit /= 10;
  }
  return std::min(value, 1000);
}

bool is_json(std::string_view type) {
  type = trim(type.substr(0, type.find(';')));
  constexpr std::string_view kSuffix = "+json";
  return iequals(type, "application/json") ||
         (type.size() > kSuffix.size() && iequals(type.substr(type.size() - kSuffix.size()), kSuffix));
}

}  // namespace

bool accepts_gzip(const HttpHeaders& request) {
  int gzip = -1;
  int any = -1;
  int identity = -1;
  for (const auto& [name, value] : request) {
    if (name.size() != 15 || !iequals(name, "Accept-Encoding")) continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      const auto comma = std::min(rest.find(','), rest.size());
      const std::string_view element = rest.substr(0, comma);
      rest.remove_prefix(std::min(rest.size(), comma + 1));
      const auto semicolon = std::min(element.find(';'), element.size());
      const std::string_view coding = trim(element.substr(0, semicolon));
      const int q = weight(element.substr(std::min(element.size(), semicolon + 1)));
      if (iequals(coding, "gzip") || iequals(coding, "x-gzip")) gzip = std::max(gzip, q);
      if (coding == "*") any = q;
      if (iequals(coding, "identity")) identity = q;
    }
  }
  if (gzip < 0) gzip = any;
  return gzip > 0 && gzip >= identity;
}

bool may_compress(const HttpResponse& response) {
  if (response.body.size() < kCompressFrom) return false;
  const std::string* type = response.header("Content-Type");
  if (type == nullptr || !is_json(*type)) return false;
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
