// MCP servers inside the Node.js process: functions that the gateway offers as tools.

const MODERN = '2026-07-28';
const META = 'io.modelcontextprotocol/';
const VERSIONS = ['2024-11-05', '2025-03-26', '2025-06-18', '2025-11-25'];

/** Thrown by a tool: its text becomes the result, marked as an error. */
export class ToolError extends Error {}

class RpcError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

function toolResult(value) {
  if (value !== null && typeof value === 'object' && 'content' in value) return value;
  return { content: [{ type: 'text', text: typeof value === 'string' ? value : JSON.stringify(value ?? null) }] };
}

/** What 2026-07-28 wants of a result besides. */
const modernMembers = (method) => ({
  resultType: 'complete',
  ...(method === 'server/discover' || method === 'tools/list' ? { ttlMs: 0, cacheScope: 'private' } : {}),
});

/** It speaks MCP of both eras: 2026-07-28 to a gateway whose target says so (protocol_era), else up to 2025-11-25. */
export class Server {
  #tools = new Map();

  constructor(name, { version = '1' } = {}) {
    this.name = name;
    this.version = version;
    /** Messages that have come, oldest first: for assertions of tests. */
    this.received = [];
  }

  /** Offers a function (arguments) => value or promise; a value with `content` is a whole CallToolResult. */
  tool(name, run, { description = '', inputSchema = { type: 'object' } } = {}) {
    this.#tools.set(name, { shown: { name, description, inputSchema }, run });
    return this;
  }

  /** The params of the calls that have come, of one tool or of all. */
  receivedCalls(tool) {
    const calls = this.received.filter((message) => message.method === 'tools/call').map((message) => message.params);
    return tool === undefined ? calls : calls.filter((params) => params.name === tool);
  }

  /** Takes one JSON-RPC message; answers go to `deliver`. */
  async receive(text, deliver) {
    const message = JSON.parse(text);
    this.received.push(message);
    if (message.id === undefined || message.method === undefined) return;
    const answer = { jsonrpc: '2.0', id: message.id };
    try {
      const params = message.params ?? {};
      const result = await this.#result(message.method, params);
      answer.result = params._meta?.[`${META}protocolVersion`] === undefined ? result : { ...modernMembers(message.method), ...result };
    } catch (error) {
      // A fault of a handler is no fault of the protocol, and its text is nobody's business.
      answer.error = error instanceof RpcError ? { code: error.code, message: error.message } : { code: -32603, message: 'The server failed' };
    }
    deliver(JSON.stringify(answer));
  }

  async #result(method, params) {
    switch (method) {
      case 'initialize':
        return {
          protocolVersion: VERSIONS.includes(params.protocolVersion) ? params.protocolVersion : VERSIONS.at(-1),
          capabilities: { tools: {} },
          serverInfo: { name: this.name, version: this.version },
        };
      case 'server/discover':
        return {
          supportedVersions: [MODERN],
          capabilities: { tools: {} },
          _meta: { [`${META}serverInfo`]: { name: this.name, version: this.version } },
        };
      case 'ping':
        return {};
      case 'tools/list':
        return { tools: [...this.#tools.values()].map((tool) => tool.shown) };
      case 'tools/call': {
        const tool = this.#tools.get(params.name);
        if (tool === undefined) throw new RpcError(-32602, 'There is no such tool');
        try {
          return toolResult(await tool.run(params.arguments ?? {}));
        } catch (error) {
          if (!(error instanceof ToolError)) throw error;
          return { content: [{ type: 'text', text: error.message }], isError: true };
        }
      }
      default:
        throw new RpcError(-32601, 'Method not found');
    }
  }
}
