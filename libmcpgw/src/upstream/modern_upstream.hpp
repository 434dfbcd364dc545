// A server of MCP 2026-07-28, over HTTP or a pipe, as an Upstream: the gateway goes on speaking to it as to
// any other. What it asks in its results reaches the observer of the call as requests do, and the answers go
// into the next try.
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
  bool ended = false;  ///< a pipe whose other side went away while it was asked: maybe because of it
};

/// How long a server is waited for that may not understand the question.
inline constexpr std::chrono::milliseconds kEraPatience{5000};
/// The same over a pipe, where an answer that comes too late still counts.
inline constexpr std::chrono::milliseconds kPipePatience{2000};
/// Id (raw JSON) of the first question on a pipe. None of the older handshake's, which may have to follow.
inline constexpr std::string_view kProbeId = R"("mcpgw-discover")";

/// Asks the server what it is (server/discover). An error whose finding is `legacy` or `unknown` leaves it to
/// the caller to try the older handshake; "upstream_protocol_error" with `modern` names what the server
/// speaks.
Task<Result<std::shared_ptr<Upstream>>> open_modern_upstream(Loop& home, HttpUpstreamOptions options,
                                                             ClientFacts client, UpstreamEvents events,
                                                             SteadyTime deadline, EraFinding& finding);

/// The same over a pipe. The channel is closed when it fails.
Task<Result<std::shared_ptr<Upstream>>> open_modern_channel_upstream(
    Loop& home, std::shared_ptr<MessageChannel> channel, ClientFacts client, UpstreamEvents events,
    SteadyTime deadline, EraFinding& finding);

/// A server of either era at the other end of a pipe (MCP 2026-07-28, basic/transports/stdio, "Backward
/// Compatibility"): asked what it is, and initialised when it does not say or says so too late. The finding
/// is `legacy` when that has worked. The channel is closed when both have failed.
Task<Result<std::shared_ptr<Upstream>>> open_any_channel_upstream(Loop& home,
                                                                  std::shared_ptr<MessageChannel> channel,
                                                                  ClientFacts client, UpstreamEvents events,
                                                                  SteadyTime deadline, EraFinding& finding);

}  // namespace mcpgw::detail
