// What is fuzzed: each function takes any bytes and aborts when a promise is broken. The fuzzers and the unit
// test that runs their corpora share them.
#pragma once

#include <string_view>

namespace mcpgw::fuzz {

void request_reader(std::string_view input);
void websocket(std::string_view input);
void sse(std::string_view input);

}  // namespace mcpgw::fuzz
