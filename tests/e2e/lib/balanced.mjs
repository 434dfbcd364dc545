// The official SDK's client behind a balancer that knows nothing of sessions.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

export { ElicitRequestSchema, LoggingMessageNotificationSchema } from '@modelcontextprotocol/sdk/types.js';

/** The SDK's client behind a round-robin balancer: each of its requests goes to the next program that lives. */
export async function connectBalanced(all, token, prepare = () => {}) {
  let next = 0;
  const balanced = async (url, init) => {
    for (let attempt = 0; ; ++attempt) {
      const gateway = all[next++ % all.length];
      try {
        return await fetch(new URL(new URL(url).pathname, gateway.url), init);
      } catch (error) {
        if (attempt >= all.length || init?.signal?.aborted) throw error;
      }
    }
  };
  const client = new Client({ name: 'e2e', version: '1.0.0' }, { capabilities: { elicitation: {} } });
  const transport = new StreamableHTTPClientTransport(new URL(all[0].url + '/mcp'),
    { fetch: balanced, requestInit: { headers: { Authorization: `Bearer ${token}` } },
      reconnectionOptions: { initialReconnectionDelay: 50, maxReconnectionDelay: 200, reconnectionDelayGrowFactor: 1.5, maxRetries: 50 } });
  client.onerror = () => {};
  prepare(client);
  await client.connect(transport);
  return client;
}
