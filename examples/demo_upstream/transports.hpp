// The two transports of MCP. Each runs until its io_context is stopped or its input ends.
#pragma once

#include <boost/asio/io_context.hpp>

namespace demo {

/// JSON-RPC messages, one a line, on stdin and stdout; stops the context at the end of stdin.
void serve_stdio(boost::asio::io_context& context);

/// Streamable HTTP at http://127.0.0.1:<port>/mcp. Returns the port (chosen by the system for 0).
/// Throws boost::system::system_error when it cannot listen.
int serve_http(boost::asio::io_context& context, int port);

}  // namespace demo
