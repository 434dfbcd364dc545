// The decoder of event streams: however the bytes are cut, the same events come out, and memory is bounded.
#include <string>
#include <vector>

#include "fuzz/promise.hpp"
#include "fuzz/targets.hpp"
#include "runtime/sse_decoder.hpp"

namespace mcpgw::fuzz {
namespace {

using detail::SseDecoder;
constexpr std::size_t kMaxEvent = 512;

struct Outcome {
  std::vector<SseDecoder::Event> events;
  bool good = true;
  std::string last_id;
};

bool same(const SseDecoder::Event& a, const SseDecoder::Event& b) {
  return a.event == b.event && a.data == b.data && a.id == b.id && a.retry == b.retry &&
         a.has_data == b.has_data;
}

Outcome decode(std::string_view input, std::size_t step) {
  SseDecoder decoder(kMaxEvent);
  Outcome out;
  for (; !input.empty() && out.good; input.remove_prefix(std::min(step, input.size())))
    out.good = decoder.feed(input.substr(0, step), out.events);
  for (const SseDecoder::Event& event : out.events) {
    promise(!event.event.empty(), "an event has a type");
    promise(event.event.size() + event.data.size() <= kMaxEvent + 16, "events are bounded");
    promise(!event.id || event.id->find('\0') == std::string::npos, "no NUL in an id");
    promise(!event.retry || *event.retry >= 0, "no negative time");
  }
  out.last_id = decoder.last_id();
  return out;
}

}  // namespace

void sse(std::string_view input) {
  const Outcome whole = decode(input, input.size() + 1);
  for (const std::size_t step : {std::size_t{1}, std::size_t{3}, input.size() / 2 + 1}) {
    const Outcome cut = decode(input, step);
    promise(
        cut.good == whole.good && cut.last_id == whole.last_id && cut.events.size() == whole.events.size(),
        "cuts change nothing");
    for (std::size_t i = 0; i < cut.events.size(); ++i)
      promise(same(cut.events[i], whole.events[i]), "cuts change no event");
  }
}

}  // namespace mcpgw::fuzz
