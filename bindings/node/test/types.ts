// What a program in TypeScript writes: this must compile, and what is marked must not.
import { EnvResolver, Gateway, McpgwError, Operation, PolicyEngine, Repository, Server, Storage, StoredRecord, TokenResolver } from '../index.js';
import { gateway } from '../testing.js';

class Mine extends Storage {
  get(collection: string, key: string): StoredRecord | null {
    return collection === key ? { collection, key, value: '{}', version: 1 } : null;
  }
  list(): StoredRecord[] {
    return [];
  }
  commit(operations: Operation[]): number[] {
    return operations.map(() => 0);
  }
}

export async function main(): Promise<string> {
  const server = new Server('s').tool('t', ({ a }: { a: number }) => a + 1, { description: 'One more' });
  const made: Gateway = await Gateway.create({ session: { timeout: '1h' } }, { storage: new Mine(), servers: { s: server }, log: (line) => console.log(line.message) });
  const repository: Repository = made.repository;
  const decision = new PolicyEngine(made).evaluate({ user: 'alice', target: 's', name: 't' });
  new PolicyEngine(repository).evaluate({ principal: { groups: ['dev'] }, target: 's', name: 't', type: 'prompt' });
  // @ts-expect-error: either a user or a principal
  new PolicyEngine(repository).evaluate({ target: 's', name: 't' });
  // @ts-expect-error: a gateway is made by create()
  new Gateway();
  const value: string | undefined = new TokenResolver(made).resolve({ user: 'a', target: 's' })?.value;
  const env: Record<string, string> = new EnvResolver(made).resolve({ user: 'a', target: 's' }).values;
  const { body } = await made.stream('GET', '/mcp');
  await body.cancel();
  const tests = await gateway();
  const reply = await (await tests.asUser('alice')).callTool('t', { a: 1 });
  await made.close();
  return `${decision.allowed} ${value} ${Object.keys(env)} ${reply.text} ${new McpgwError('internal', 'x', 'y').reason}`;
}
