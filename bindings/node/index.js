// mcpgw: an MCP gateway in your process.
import { lib } from './lib/native.js';

export { Gateway, HttpServer } from './lib/gateway.js';
export { McpgwError } from './lib/native.js';
export { ApiError, EnvResolver, PolicyEngine, Repository, TokenResolver } from './lib/policy.js';
export { Server, ToolError } from './lib/server.js';
export { Storage, versionConflict } from './lib/storage.js';

export const version = lib.mcpgw_version();
