// The feed: entries made of what the gateway says, and which of them a filter lets through.
import type { Activity, Entry, LogRow, Outcome, SessionEvent, UpstreamEvent } from './types';

function outcomeOf(error: boolean, decision: string | null | undefined): Outcome {
  if (decision === 'deny') return 'denied';
  return error ? 'error' : 'ok';
}

function key(at: string, user: string | undefined, method: string, tool: string | undefined, ms: number): string {
  return JSON.stringify([at, user ?? '', method, tool ?? '', ms]);
}

export function fromActivity(a: Activity, why = ''): Entry {
  return {
    key: key(a.timestamp, a.user_id, a.method, a.tool, a.duration_ms),
    at: Date.parse(a.timestamp),
    outcome: outcomeOf(a.status !== 'ok', a.decision),
    user: a.user_email ?? '',
    method: a.method,
    target: a.target ?? '',
    tool: a.tool ?? '',
    durationMs: a.duration_ms,
    code: a.error_code ?? '',
    why,
    session: a.session_id ?? '',
    trace: a.trace_id ?? '',
  };
}

export function fromLog(row: LogRow): Entry {
  return {
    key: key(row.created_at, row.user_id, row.method, row.tool, row.duration_ms),
    at: Date.parse(row.created_at),
    outcome: outcomeOf(row.response_status >= 400, row.decision),
    user: row.user_email ?? '',
    method: row.method,
    target: row.target_name ?? '',
    tool: row.tool ?? '',
    durationMs: row.duration_ms,
    code: row.error_code ?? '',
    why: '',
    session: row.session_id ?? '',
    trace: row.trace_id ?? '',
  };
}

let events = 0;

function event(at: number, members: Partial<Entry>): Entry {
  return {
    key: `event ${++events}`, at, outcome: 'event', user: '', method: '', target: '', tool: '', durationMs: null,
    code: '', why: '', session: '', trace: '', ...members,
  };
}

export function fromSession(s: SessionEvent, now: number, emailOf: (id: string) => string): Entry {
  return event(now, {
    method: `session ${s.event}`, user: s.user_id ? emailOf(s.user_id) : '', session: s.session_id,
  });
}

export function fromUpstream(u: UpstreamEvent): Entry {
  return event(Date.parse(u.timestamp), { method: u.error_type, target: u.target ?? '', why: u.message });
}

/** Why calls failed: told just before the call itself, by user, target and code. */
export class Causes {
  private readonly waiting = new Map<string, string>();

  put(u: UpstreamEvent): void {
    if (this.waiting.size >= 100) this.waiting.clear();
    this.waiting.set(JSON.stringify([u.user_id, u.target, u.error_type]), u.message);
  }

  take(a: Activity): string {
    const key = JSON.stringify([a.user_id, a.target, a.error_code]);
    const why = this.waiting.get(key) ?? '';
    this.waiting.delete(key);
    return why;
  }
}

export interface Filter {
  user: string;
  target: string;
  tool: string;
  outcome: '' | Outcome;
}

export const NO_FILTER: Filter = { user: '', target: '', tool: '', outcome: '' };

export function isFiltering(filter: Filter): boolean {
  return filter.user.trim() !== '' || filter.target !== '' || filter.tool.trim() !== '' || filter.outcome !== '';
}

const contains = (text: string, part: string): boolean => text.toLowerCase().includes(part);

/** User and tool (or method) by a part of the name, ignoring case; the target by its whole name. */
export function matches(entry: Entry, filter: Filter): boolean {
  if (filter.outcome !== '' && entry.outcome !== filter.outcome) return false;
  if (filter.target !== '' && entry.target !== filter.target) return false;
  const user = filter.user.trim().toLowerCase();
  if (user !== '' && !contains(entry.user, user)) return false;
  const tool = filter.tool.trim().toLowerCase();
  return tool === '' || contains(entry.tool, tool) || contains(entry.method, tool);
}

/** The first `limit` matches of what is given, and how many there are. */
export function select(entries: Iterable<Entry>, filter: Filter, limit: number): { shown: Entry[]; found: number } {
  const shown: Entry[] = [];
  let found = 0;
  for (const entry of entries) {
    if (!matches(entry, filter)) continue;
    ++found;
    if (shown.length < limit) shown.push(entry);
  }
  return { shown, found };
}
