// The REST API. The token is in memory and in this tab's session storage: never in a URL, a cookie or local storage.
import { ApiError } from './errors';
import { keep, kept } from './keep';
import type { LogRow, Snapshot, User } from './types';

const KEY = 'mcpgw.token';
const forThisTab = () => sessionStorage;
let token = kept(forThisTab, KEY);

export const hasToken = (): boolean => token !== '';

export function keepToken(text: string): void {
  token = text;
  keep(forThisTab, KEY, text);
}

/** A URL of this gateway, which may be below a path. */
export const gatewayUrl = (path: string): URL => new URL(path, document.baseURI);

/** Whether there is something at a path; it may be switched off. */
export async function exists(path: string): Promise<boolean> {
  try {
    const answer = await fetch(gatewayUrl(path), { method: 'HEAD', credentials: 'omit' });
    await answer.text();  // a body that nobody reads, though empty, counts as broken off
    return answer.ok;
  } catch {
    return false;
  }
}

interface Answer {
  body: unknown;
  headers: Headers;
}

/** `last`: it goes out even when the page is closed at the same moment. */
async function ask(method: string, path: string, body?: unknown, last = false): Promise<Answer> {
  const headers: Record<string, string> = {};
  if (token) headers['Authorization'] = `Bearer ${token}`;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  let response: Response;
  try {
    const init: RequestInit = { method, headers, keepalive: last, cache: 'no-store', credentials: 'omit', redirect: 'error',
      signal: AbortSignal.timeout(20_000) };
    if (body !== undefined) init.body = JSON.stringify(body);
    response = await fetch(gatewayUrl(path), init);
  } catch {
    throw new ApiError(0, 'unreachable', 'The gateway cannot be reached.');
  }
  const text = await response.text();
  let parsed: unknown = null;
  try {
    if (text) parsed = JSON.parse(text);
  } catch {
    // A proxy's own page, for example: what matters is the status.
  }
  if (response.ok) return { body: parsed, headers: response.headers };
  const error = (parsed ?? {}) as { error?: unknown; code?: unknown };
  throw new ApiError(response.status, typeof error.code === 'string' ? error.code : `http_${response.status}`,
    typeof error.error === 'string' ? error.error : `The gateway answered ${response.status}.`,
    1000 * (Number(response.headers.get('Retry-After')) || 0));
}

interface Entrance {
  user: User;
  token: string;
}

export const login = async (email: string, password: string): Promise<Entrance> =>
  (await ask('POST', 'api/auth/login', { email, password })).body as Entrance;

export const register = async (email: string, password: string, setupToken: string): Promise<Entrance> =>
  (await ask('POST', 'api/auth/register', setupToken ? { email, password, setup_token: setupToken } : { email, password }))
    .body as Entrance;

export const logout = async (): Promise<void> => {
  await ask('POST', 'api/auth/logout', undefined, true);
};

export const me = async (): Promise<User> => (await ask('GET', 'api/auth/me')).body as User;

export const snapshot = async (): Promise<Snapshot> =>
  (await ask('GET', 'api/observability/snapshot')).body as Snapshot;

export const ticket = async (): Promise<string> =>
  ((await ask('POST', 'api/observability/ticket')).body as { ticket: string }).ticket;

/** A token for MCP clients; it is shown this once. */
export const createToken = async (name: string): Promise<string> =>
  ((await ask('POST', 'api/auth/tokens', { name, scopes: ['mcp'] })).body as { token: string }).token;

/** MCP requests since `since`, the newest first; at most `most`. */
export async function recentCalls(since: number, most = 3000): Promise<LogRow[]> {
  const rows: LogRow[] = [];
  const query = `api/logs?kind=mcp&limit=1000&since=${encodeURIComponent(new Date(since).toISOString())}`;
  let next: string | undefined = query;
  while (next && rows.length < most) {
    const { body, headers }: Answer = await ask('GET', next);
    if (!Array.isArray(body)) break;
    rows.push(...(body as LogRow[]));
    const cursor: string | undefined = /[?&](cursor=[^&>]+)[^>]*>; *rel="next"/.exec(headers.get('Link') ?? '')?.[1];
    next = cursor && `${query}&${cursor}`;
  }
  return rows;
}
