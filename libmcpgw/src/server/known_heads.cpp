#include "server/known_heads.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/text.hpp"

namespace mcpgw::detail::server {
namespace {

constexpr std::size_t kMaxBytes = 4096;  // longer heads are read anew each time
constexpr std::string_view kLengthName = "content-length:";

struct Outline {
  std::size_t size = 0;  ///< of the head with its blank line; 0: the data hold none
  RequestReader::Span length;
  std::uint64_t print = 0;
};

/// A product carries upwards only, and a line's last byte is the highest of its word: it is folded down
/// first.
std::uint64_t mix(std::uint64_t print, std::uint64_t value) noexcept {
  print ^= value;
  print = (print ^ print >> 32) * 0x9e3779b97f4a7c15u;
  return print ^ print >> 29;
}

bool digit(char c) noexcept { return c >= '0' && c <= '9'; }
bool blank(char c) noexcept { return c == ' ' || c == '\t'; }

/// The digits in the line of a Content-Length; of size 0 when there is anything else in it.
RequestReader::Span digits_in(std::string_view data, std::size_t begin, std::size_t end) noexcept {
  std::size_t from = begin + kLengthName.size();
  while (from < end && blank(data[from])) ++from;
  std::size_t to = from;
  while (to < end && digit(data[to])) ++to;
  std::size_t rest = to;
  while (rest < end && blank(data[rest])) ++rest;
  if (rest != end) return {};
  return {static_cast<std::uint32_t>(from), static_cast<std::uint32_t>(to - from)};
}

/// Where the head of `data` ends, and how it differs from others: most lines do so at their ends, if at all.
/// What is found by it is compared as a whole.
Outline outline_of(std::string_view data) noexcept {
  Outline out;
  data = data.substr(0, kMaxBytes);
  for (std::size_t begin = 0;;) {
    const std::size_t newline = data.find('\n', begin);
    if (newline == std::string_view::npos || newline == begin || data[newline - 1] != '\r') return {};
    const std::size_t end = newline - 1;
    if (end == begin) {
      if (begin != 0) out.size = newline + 1;
      out.print = mix(out.print, out.size);
      return out;
    }
    const std::string_view line = data.substr(begin, end - begin);
    if ((line.front() | 0x20) == 'c' && starts_with_icase(line, kLengthName)) {
      out.length = digits_in(data, begin, end);
      out.print = mix(out.print, out.length.size);
    } else {
      std::uint64_t tail = line.size();
      if (line.size() >= sizeof tail)
        std::memcpy(&tail, line.data() + line.size() - sizeof tail, sizeof tail);
      out.print = mix(out.print, tail);
    }
    begin = newline + 1;
  }
}

bool same(const KnownHead& known, std::string_view head, const Outline& outline) noexcept {
  const RequestReader::Span length = known.head.length;
  if (known.print != outline.print || known.bytes.size() != head.size() || length.at != outline.length.at ||
      length.size != outline.length.size)
    return false;
  const std::string_view bytes = known.bytes;
  return bytes.substr(0, length.at) == head.substr(0, length.at) &&
         bytes.substr(length.at + length.size) == head.substr(length.at + length.size);
}

}  // namespace

const KnownHead* KnownHeads::find(std::string_view data) noexcept {
  const Outline outline = outline_of(data);
  if (outline.size == 0) return nullptr;
  std::unique_ptr<KnownHead>* const pair = pair_of(outline.print);
  for (const std::size_t i : {0, 1}) {
    KnownHead* const known = pair[i].get();
    if (known == nullptr || !same(*known, data.substr(0, outline.size), outline)) continue;
    known->recent = true;
    if (pair[1 - i]) pair[1 - i]->recent = false;
    return known;
  }
  return nullptr;
}

void KnownHeads::keep(std::string_view bytes, const RequestReader::Head& head, const HttpRequest& request,
                      bool gzip) {
  const Outline outline = outline_of(bytes);
  // Where a length is read differently here there is nothing to be found either.
  if (outline.size != bytes.size() || outline.length.at != head.length.at ||
      outline.length.size != head.length.size)
    return;
  // Some clients say something new with each request: that is not worth a copy.
  const auto seen = static_cast<std::uint32_t>(outline.print);
  if (std::exchange(seen_[static_cast<std::size_t>(outline.print >> 32) % kSeen], seen) != seen) return;
  const auto header = std::find_if(request.headers.begin(), request.headers.end(), [](const auto& one) {
    return iequals(one.first, kLengthName.substr(0, kLengthName.size() - 1));
  });
  if (outline.length.size != 0 && header == request.headers.end()) return;
  auto known = std::make_unique<KnownHead>();
  known->bytes = bytes;
  known->head = head;
  known->request.method = request.method;
  known->request.target = request.target;
  known->request.headers = request.headers;
  known->length_header = static_cast<std::size_t>(header - request.headers.begin());
  known->gzip = gzip;
  known->print = outline.print;
  known->recent = true;
  std::unique_ptr<KnownHead>* const pair = pair_of(outline.print);
  const std::size_t place = pair[0] && pair[0]->recent ? 1 : 0;
  pair[place] = std::move(known);
  if (pair[1 - place]) pair[1 - place]->recent = false;
}

}  // namespace mcpgw::detail::server
