// What the fuzzers start from, and what they have found before, without a fuzzer.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz/targets.hpp"

namespace {

std::size_t run(const char* target, void (*check)(std::string_view)) {
  std::size_t files = 0;
  for (const char* kind : {"corpus", "regressions"}) {
    const std::filesystem::path directory =
        std::filesystem::path(MCPGW_SOURCE_DIR) / "tests/fuzz" / kind / target;
    if (!std::filesystem::exists(directory)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      std::ifstream in(entry.path(), std::ios::binary);
      const std::string bytes{std::istreambuf_iterator<char>(in), {}};
      CAPTURE(entry.path().string());
      check(bytes);  // aborts when something is wrong
      for (std::size_t cut = 0; cut < bytes.size(); ++cut) check(std::string_view(bytes).substr(cut));
      ++files;
    }
  }
  return files;
}

}  // namespace

TEST_CASE("the corpora of the fuzzers keep every promise, whole and from any byte on") {
  CHECK(run("request_reader", mcpgw::fuzz::request_reader) >= 12);
  CHECK(run("websocket", mcpgw::fuzz::websocket) >= 11);
  CHECK(run("sse", mcpgw::fuzz::sse) >= 8);
}
