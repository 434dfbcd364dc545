// Cases of this tier run twice: by direct calls, and over a socket (MCPGW_TEST_OVER_SOCKET).
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "json/raw.hpp"
#include "mcpgw/testing.hpp"

namespace mcpgw::testing {

inline InProcessOptions options() {
  InProcessOptions out;
#ifdef MCPGW_TEST_OVER_SOCKET
  out.over_socket = true;
#endif
  return out;
}

inline std::shared_ptr<FakeUpstream> echo_upstream(const std::string& name) {
  auto out = std::make_shared<FakeUpstream>();
  out->add_tool("echo", [name](const FakeUpstream::Call& call) {
    return FakeUpstream::text(name + " " + call.arguments);
  });
  return out;
}

/// A target of HTTP kind, so that every scope of credentials applies; the test's channel stands in for the
/// network.
inline Target http_target(const std::string& name) {
  Target out;
  out.name = name;
  out.transport_type = TransportType::streamable_http;
  out.url = "http://" + name + ".invalid/mcp";
  out.auth_type = AuthType::bearer;
  return out;
}

inline bool contains(const std::vector<std::string>& all, const std::string& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

}  // namespace mcpgw::testing
