namespace mcpgw::detail {}
