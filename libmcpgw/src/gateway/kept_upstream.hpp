// Sessions that servers have made for a client's session, so that whoever opens that after this process, or
// on another replica, goes on with them.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "upstream/upstream.hpp"

namespace mcpgw::detail {

/// A server's session that another connection has made: in this process's last run, or of another replica.
struct KeptUpstream {
  std::string key;  ///< of the binding that it was made with: it is nobody else's
  UpstreamSession session;
  std::atomic<bool> gone{false};  ///< the server does not know it any more
};

/// Of SessionRecord::upstream_ids; nullptr: not of our form, so the server is asked for a new one.
std::shared_ptr<KeptUpstream> decode_kept(const std::string& text);

}  // namespace mcpgw::detail
