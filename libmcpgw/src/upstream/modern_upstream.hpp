// A server of MCP 2026-07-28 over HTTP as an Upstream: the gateway goes on speaking to it as to any other.
// What it asks in its results reaches the observer of the call as requests do, and the answers go into the
// next try.
#pragma once

#include "upstream/upstream.hpp"

namespace mcpgw::detail {

/// What a server said to a request of the modern era.
struct EraFinding {
  enum class Verdict {
    modern,
    legacy,   ///< it answered, and not as a modern server does
    unknown,  ///< its answer tells nothing of the era, or none came in time
  };
  Verdict verdict = Verdict::unknown;
};

/// Asks the server what it is (server/discover). An error whose finding is `legacy` or `unknown` leaves it to
/// the caller to try the older handshake; "upstream_protocol_error" with `modern` names what the server
/// speaks.
Task<Result<std::shared_ptr<Upstream>>> open_modern_upstream(Loop& home, HttpUpstreamOptions options,
                                                             ClientFacts client, UpstreamEvents events,
                                                             SteadyTime deadline, EraFinding& finding);

}  // namespace mcpgw::detail
