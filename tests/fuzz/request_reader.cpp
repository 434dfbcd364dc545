// The request reader: however the bytes are cut, the same requests come out; httplib takes each of them.
#include <string>
#include <vector>

#include "fuzz/promise.hpp"
#include "fuzz/targets.hpp"
#include "server/framing.hpp"
#include "server/httplib_parser.hpp"

namespace mcpgw::fuzz {
namespace {

using detail::server::FramingLimits;
using detail::server::HttplibParser;
using detail::server::KnownHead;
using detail::server::RequestReader;

struct Outcome {
  std::vector<HttpRequest> requests;
  int refused = 0;

  bool operator==(const Outcome& other) const {
    if (refused != other.refused || requests.size() != other.requests.size()) return false;
    for (std::size_t i = 0; i < requests.size(); ++i) {
      const HttpRequest& a = requests[i];
      const HttpRequest& b = other.requests[i];
      if (a.method != b.method || a.target != b.target || a.headers != b.headers || a.body != b.body)
        return false;
    }
    return true;
  }
};

bool is_plain(std::string_view text) {
  return text.find('\r') == std::string_view::npos && text.find('\n') == std::string_view::npos &&
         text.find('\0') == std::string_view::npos;
}

/// All requests of `input`, fed in pieces of `step`.
Outcome read(std::string_view input, std::size_t step, HttplibParser& parser) {
  FramingLimits limits;
  limits.max_body = 4096;
  RequestReader reader(limits);
  Outcome out;
  while (!input.empty()) {
    std::string_view piece = input.substr(0, step);
    input.remove_prefix(piece.size());
    while (!piece.empty()) {
      std::size_t used = 0;
      const KnownHead* const known = reader.idle() ? parser.recall(piece) : nullptr;
      const auto progress = reader.feed(piece, used, known != nullptr ? &known->head : nullptr);
      promise(used <= piece.size(), "no more is used than was given");
      if (progress == RequestReader::Progress::failed) {
        out.refused = reader.error().status;
        promise(out.refused >= 400 && out.refused < 500, "a refusal has a status");
        return out;
      }
      if (progress == RequestReader::Progress::need_more) {
        promise(used == piece.size(), "what is not complete takes everything");
        reader.take_continue();
        break;
      }
      promise(used != 0, "a request takes bytes");
      HttpRequest request;
      bool gzip = false;
      promise(parser.parse(reader, request, gzip, known), "httplib takes what the reader took");
      promise(request.body.size() <= limits.max_body, "bodies are bounded");
      promise(request.headers.size() <= limits.max_headers + 1, "headers are bounded");
      for (const auto& [name, value] : request.headers)
        promise(!name.empty() && is_plain(name) && is_plain(value), "no header leaves its line");
      promise(is_plain(request.target) && is_plain(request.method), "no target leaves its line");
      out.requests.push_back(std::move(request));
      piece.remove_prefix(used);
      reader.next();
    }
  }
  return out;
}

}  // namespace

void request_reader(std::string_view input) {
  static HttplibParser parser;
  const Outcome whole = read(input, input.size() + 1, parser);
  for (const std::size_t step : {std::size_t{1}, std::size_t{7}, input.size() / 2 + 1})
    promise(read(input, step, parser) == whole, "cuts change nothing");
  // By now its heads are known.
  promise(read(input, input.size() + 1, parser) == whole, "what is known says the same");
}

}  // namespace mcpgw::fuzz
