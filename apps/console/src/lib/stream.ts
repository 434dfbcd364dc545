// The WebSocket of the gateway, kept open: opened with a ticket that is good for one use, opened again when it ends.
import { backoff } from './backoff';
import { ApiError } from './errors';

export type Connection =
  | { state: 'connecting' }
  | { state: 'live' }
  /** It will be tried again at `retryAt` (milliseconds since 1970), or is being tried when that is past. */
  | { state: 'waiting'; retryAt: number; why: string }
  | { state: 'stopped' };

export interface Socket {
  /** 0 until its opening handshake is done. */
  readonly readyState: number;
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number }) => void) | null;
  close(): void;
}

/** What it needs of the world; tests bring their own. */
export interface World {
  ticket(): Promise<string>;
  open(ticket: string): Socket;
  now(): number;
  random(): number;
  after(ms: number, act: () => void): () => void;
}

export interface Listener {
  connection(state: Connection): void;
  /** Before the first frame of every connection. */
  opened(): void;
  frame(type: string, data: unknown): void;
  /** The token is good no more. */
  refused(error: ApiError): void;
  /** The gateway ended the connection since the user has changed. */
  changed(): void;
}

/** Metrics come every two seconds: a connection that says nothing for this long is dead. */
const SILENCE_MS = 15_000;
const POLICY_VIOLATION = 1008;
const CONNECTING = 0;

export class Stream {
  private socket: Socket | null = null;
  private cancelTimer: (() => void) | null = null;
  private attempt = 0;
  /** Answers to what was asked before the latest start or stop are of no use. */
  private generation = 0;
  private waiting = false;
  private why = '';

  constructor(private readonly world: World, private readonly listener: Listener) {}

  start(): void {
    this.drop();
    this.attempt = 0;
    void this.connect();
  }

  stop(): void {
    this.drop();
    this.listener.connection({ state: 'stopped' });
  }

  /** Does not wait any longer. */
  retryNow(): void {
    if (!this.waiting) return;
    this.drop();
    void this.connect();
  }

  private drop(dead = false): void {
    ++this.generation;
    this.waiting = false;
    this.cancelTimer?.();
    this.cancelTimer = null;
    const socket = this.socket;
    this.socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // One that is nobody's fault ends in silence: browsers report a close before the handshake is done as an error. One
    // that is given up as dead does not wait for it, for it would keep the next one to this host waiting, too.
    if (socket.readyState === CONNECTING && !dead) socket.onopen = () => socket.close();
    else socket.close();
  }

  private timer(ms: number, act: () => void): void {
    this.cancelTimer?.();
    this.cancelTimer = this.world.after(ms, act);
  }

  private async connect(): Promise<void> {
    const mine = this.generation;
    // After a failure it says so until it is live again.
    this.listener.connection(this.attempt === 0 ? { state: 'connecting' }
      : { state: 'waiting', retryAt: this.world.now(), why: this.why });
    let ticket: string;
    try {
      ticket = await this.world.ticket();
    } catch (error) {
      if (mine !== this.generation) return;
      const failure = error instanceof ApiError ? error : new ApiError(0, 'unreachable', String(error));
      if (failure.status === 401 || failure.status === 403) {
        this.drop();
        this.listener.refused(failure);
        return;
      }
      this.wait(failure.message, failure.retryAfterMs);
      return;
    }
    if (mine !== this.generation) return;
    const socket = this.world.open(ticket);
    this.socket = socket;
    let opened = false;
    this.timer(SILENCE_MS, () => this.lost('The gateway does not answer.'));
    socket.onmessage = ({ data }) => {
      this.timer(SILENCE_MS, () => this.lost('The gateway has fallen silent.'));
      if (!opened) {
        opened = true;
        this.attempt = 0;
        this.listener.opened();
        this.listener.connection({ state: 'live' });
      }
      const frame = parse(data);
      if (frame) this.listener.frame(frame.type, frame.data);
    };
    socket.onclose = ({ code }) => {
      if (code === POLICY_VIOLATION && opened) {
        // The token was revoked or the user changed: a new ticket tells which.
        this.drop();
        this.listener.changed();
        void this.connect();
        return;
      }
      this.lost(code === 1013 ? 'This page could not keep up.' : code === 1001 ? 'The gateway is restarting.'
        : 'The connection was lost.');
    };
  }

  private lost(why: string): void {
    this.drop(true);
    this.wait(why, 0);
  }

  private wait(why: string, atLeastMs: number): void {
    ++this.attempt;
    const ms = Math.max(backoff(this.attempt, this.world.random), Math.min(atLeastMs, 60_000));
    this.waiting = true;
    this.why = why;
    this.listener.connection({ state: 'waiting', retryAt: this.world.now() + ms, why });
    this.timer(ms, () => this.retryNow());
  }
}

function parse(data: unknown): { type: string; data: unknown } | null {
  if (typeof data !== 'string') return null;
  try {
    const frame = JSON.parse(data) as { type?: unknown; data?: unknown } | null;
    return frame && typeof frame.type === 'string' && typeof frame.data === 'object' && frame.data !== null
      ? { type: frame.type, data: frame.data } : null;
  } catch {
    return null;
  }
}
