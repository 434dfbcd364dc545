// The entry of one fuzzer; MCPGW_FUZZ_TARGET names what it fuzzes.
#include <cstddef>
#include <cstdint>

#include "fuzz/targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  mcpgw::fuzz::MCPGW_FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  return 0;
}
