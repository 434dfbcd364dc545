// Latency and volume of the last minutes, in memory that does not grow with traffic.

/** A bin for each millisecond below 20; beyond they grow by 5 %, so a percentile is at most that far off. */
const EXACT = 20;
const GROWTH = Math.log(1.05);
const BINS = 320; // beyond an hour

export function binOf(ms: number): number {
  if (!(ms > 0)) return 0;
  if (ms < EXACT) return Math.round(ms);
  return Math.min(BINS - 1, EXACT + Math.ceil(Math.log(ms / EXACT) / GROWTH));
}

export function valueOf(bin: number): number {
  return bin < EXACT ? bin : EXACT * Math.exp((bin - EXACT) * GROWTH);
}

/** Percentiles (0..1, ascending) of counted bins; null when nothing was counted. */
export function percentiles(bins: ArrayLike<number>, parts: readonly number[]): number[] | null {
  let total = 0;
  for (let i = 0; i < bins.length; ++i) total += bins[i] as number;
  if (total === 0) return null;
  const out: number[] = [];
  let seen = 0;
  let bin = 0;
  for (const part of parts) {
    const rank = Math.max(1, Math.ceil(part * total));
    while (bin < bins.length && seen + (bins[bin] as number) < rank) seen += bins[bin++] as number;
    out.push(valueOf(Math.min(bin, bins.length - 1)));
  }
  return out;
}

export interface Point {
  /** Start of the slot, in milliseconds since 1970. */
  at: number;
  count: number;
  errors: number;
  /** p50, p95, p99; null without requests. */
  latency: readonly [number, number, number] | null;
}

interface Slot {
  epoch: number;
  count: number;
  errors: number;
  bins: Uint32Array;
}

export class LatencyHistory {
  readonly slotMs: number;
  readonly slots: number;
  private ring: (Slot | undefined)[];

  constructor(windowMs = 15 * 60 * 1000, slotMs = 10 * 1000) {
    this.slotMs = slotMs;
    this.slots = Math.ceil(windowMs / slotMs);
    this.ring = new Array(this.slots);
  }

  /** `now` bounds what is taken: neither the future nor what has left the window. */
  add(at: number, durationMs: number, error: boolean, now: number): void {
    const epoch = Math.floor(at / this.slotMs);
    const current = Math.floor(now / this.slotMs);
    if (!Number.isFinite(epoch) || epoch > current || epoch <= current - this.slots) return;
    const place = epoch % this.slots;
    let slot = this.ring[place];
    if (!slot || slot.epoch < epoch) {
      slot = { epoch, count: 0, errors: 0, bins: new Uint32Array(BINS) };
      this.ring[place] = slot;
    } else if (slot.epoch > epoch) {
      return;
    }
    ++slot.count;
    if (error) ++slot.errors;
    const bin = binOf(durationMs);
    slot.bins[bin] = (slot.bins[bin] as number) + 1;
  }

  clear(): void {
    this.ring = new Array(this.slots);
  }

  /** One point for each slot of the window, the oldest first. */
  points(now: number): Point[] {
    const current = Math.floor(now / this.slotMs);
    const out: Point[] = [];
    for (let epoch = current - this.slots + 1; epoch <= current; ++epoch) {
      const slot = this.ring[((epoch % this.slots) + this.slots) % this.slots];
      const at = epoch * this.slotMs;
      if (!slot || slot.epoch !== epoch) {
        out.push({ at, count: 0, errors: 0, latency: null });
        continue;
      }
      const values = percentiles(slot.bins, [0.5, 0.95, 0.99]);
      out.push({ at, count: slot.count, errors: slot.errors, latency: values as [number, number, number] | null });
    }
    return out;
  }
}

/** How many things a second happened lately. */
export class RateMeter {
  private seconds: Int32Array;
  private epochs: Float64Array;

  constructor(private readonly windowS = 10) {
    this.seconds = new Int32Array(windowS + 1);
    this.epochs = new Float64Array(windowS + 1).fill(-1);
  }

  add(now: number): void {
    const second = Math.floor(now / 1000);
    const place = second % this.seconds.length;
    if (this.epochs[place] !== second) {
      this.epochs[place] = second;
      this.seconds[place] = 0;
    }
    this.seconds[place] = (this.seconds[place] as number) + 1;
  }

  /** A second, over the last whole seconds; over fewer of them when `since` is later. */
  rate(now: number, since: number): number {
    const second = Math.floor(now / 1000);
    const span = Math.min(this.windowS, Math.max(1, second - Math.floor(since / 1000)));
    let sum = 0;
    for (let i = 0; i < this.seconds.length; ++i) {
      const epoch = this.epochs[i] as number;
      if (epoch < second && epoch >= second - span) sum += this.seconds[i] as number;
    }
    return sum / span;
  }
}
