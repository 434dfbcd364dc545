// What the dashboard shows: the latest numbers, the feed, and the latency of the last minutes.
import * as api from './api';
import { ApiError } from './errors';
import { Causes, fromActivity, fromLog, fromSession, fromUpstream } from './feed';
import { LatencyHistory, RateMeter } from './latency';
import { Ring } from './ring';
import { Stream, type Connection, type Socket } from './stream';
import type { Activity, Entry, SessionEvent, Snapshot, UpstreamEvent, User } from './types';

const WINDOW_MS = 15 * 60 * 1000;
const FEED = 1000;
/** Screens are not drawn more often than this, whatever the traffic. */
const DRAW_MS = 250;

export class Live {
  connection: Connection = { state: 'connecting' };
  snapshot: Snapshot | null = null;
  readonly history = new LatencyHistory(WINDOW_MS);
  readonly feed = new Ring<Entry>(FEED);
  /** Every entry ever added, so that a paused feed can say how many it holds back. */
  added = 0;
  /** Whether the log of the last minutes has been read: until then "no calls" is not known. */
  loaded = false;
  targets = new Set<string>();

  private readonly meter = new RateMeter();
  private since = 0;
  private ahead = 0;
  private readonly stream: Stream;
  private readonly listeners = new Set<() => void>();
  private drawTimer: ReturnType<typeof setTimeout> | null = null;
  private lastDraw = 0;
  private readonly seen = new Set<string>();
  private readonly causes = new Causes();
  private readonly emails = new Map<string, string>();

  /** `ended`: the token is good no more. `userChanged`: asks who the user is now. */
  constructor(user: User, ended: (error: ApiError) => void, userChanged: () => void) {
    this.emails.set(user.id, user.email);
    this.stream = new Stream({
      ticket: api.ticket,
      open: (ticket) => {
        const url = api.gatewayUrl(`api/observability/ws?ticket=${encodeURIComponent(ticket)}`);
        url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
        return new WebSocket(url) as unknown as Socket;
      },
      now: Date.now,
      random: Math.random,
      after: (ms, act) => {
        const timer = setTimeout(act, ms);
        return () => clearTimeout(timer);
      },
    }, {
      connection: (state) => {
        this.connection = state;
        this.changed();
      },
      opened: () => {
        this.since = Date.now();
        void this.catchUp(ended);
      },
      frame: (type, data) => this.frame(type, data),
      refused: ended,
      changed: userChanged,
    });
  }

  start(): void {
    this.stream.start();
    window.addEventListener('online', this.retryNow);
    document.addEventListener('visibilitychange', this.onVisible);
  }

  stop(): void {
    window.removeEventListener('online', this.retryNow);
    document.removeEventListener('visibilitychange', this.onVisible);
    this.listeners.clear();
    this.stream.stop();
    if (this.drawTimer) clearTimeout(this.drawTimer);
  }

  readonly retryNow = (): void => this.stream.retryNow();
  private readonly onVisible = (): void => {
    if (document.visibilityState === 'visible') this.stream.retryNow();
  };

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** The time of the gateway, which the clock of this machine may be far from: all that is shown is of the gateway. */
  now(): number {
    return Date.now() + this.ahead;
  }

  /** Requests a second, over the last ten seconds. */
  rate(): number {
    return this.meter.rate(Date.now(), this.since);
  }

  private changed(): void {
    if (this.drawTimer) return;
    const wait = Math.max(0, this.lastDraw + DRAW_MS - Date.now());
    this.drawTimer = setTimeout(() => {
      this.drawTimer = null;
      this.lastDraw = Date.now();
      for (const listener of this.listeners) listener();
    }, wait);
  }

  private emailOf = (id: string): string => this.emails.get(id) ?? id.slice(0, 8);

  private frame(type: string, data: unknown): void {
    if (type === 'metrics') {
      this.snapshot = data as Snapshot;
      const ahead = Date.parse(this.snapshot.timestamp) - Date.now();
      if (Math.abs(ahead - this.ahead) > 500) this.ahead = ahead;  // less is the way of the frame
      for (const target of this.snapshot.targets) this.targets.add(target.name);
    } else if (type === 'activity') {
      const activity = data as Activity;
      if (activity.user_id && activity.user_email && this.emails.size < 10_000)
        this.emails.set(activity.user_id, activity.user_email);
      this.meter.add(Date.now());
      this.add(fromActivity(activity, this.causes.take(activity)));
    } else if (type === 'session') {
      this.add(fromSession(data as SessionEvent, this.now(), this.emailOf));
    } else if (type === 'error') {
      // What ended somebody's call explains the call that follows; the others are of a target.
      const failure = data as UpstreamEvent;
      if (failure.user_id) this.causes.put(failure);
      else this.add(fromUpstream(failure));
    } else {
      return;
    }
    this.changed();
  }

  private add(entry: Entry): void {
    if (this.seen.has(entry.key)) return;
    this.remember(entry.key);
    this.feed.push(entry);
    ++this.added;
    this.count(entry);
  }

  private count(entry: Entry): void {
    if (entry.target && this.targets.size < 1000) this.targets.add(entry.target);
    if (entry.durationMs !== null)
      this.history.add(entry.at, entry.durationMs, entry.outcome === 'error' || entry.outcome === 'denied', this.now());
  }

  private remember(key: string): void {
    this.seen.add(key);
    if (this.seen.size <= 8 * FEED) return;
    for (const old of this.seen) {  // in the order in which they came
      this.seen.delete(old);
      if (this.seen.size <= 6 * FEED) break;
    }
  }

  /** What happened before this connection was open, out of the log. */
  private async catchUp(ended: (error: ApiError) => void): Promise<void> {
    try {
      const rows = await api.recentCalls(this.now() - WINDOW_MS);
      const missed = rows.map(fromLog).filter((entry) => !this.seen.has(entry.key));
      if (missed.length > 0) {
        const all = [...this.feed.newest(), ...missed].sort((a, b) => a.at - b.at);
        this.feed.clear();
        for (const entry of all) this.feed.push(entry);
        for (const entry of missed) {
          this.remember(entry.key);
          this.count(entry);
        }
        this.added += missed.length;
      }
      this.loaded = true;
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) return ended(error);
      this.loaded = true;  // what comes from now on is shown all the same
    }
    this.changed();
  }
}
