#pragma once

#include <cstdio>
#include <cstdlib>

namespace mcpgw::fuzz {

/// Ends the program when something does not hold that must.
inline void promise(bool kept, const char* what) {
  if (kept) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

}  // namespace mcpgw::fuzz
