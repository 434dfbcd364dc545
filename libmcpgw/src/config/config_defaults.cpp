// What differs from the library's own defaults when nothing is configured.
#include "config.hpp"

namespace mcpgw::app {

Config::Config() {
  http.port = 3000;
  gateway.stdio.enabled = true;
}

}  // namespace mcpgw::app
