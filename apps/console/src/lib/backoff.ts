const FIRST_MS = 1000;
const MOST_MS = 30_000;

/** How long to wait before attempt number `attempt` (from 1): doubled each time, up to 30 s, a quarter off or on. */
export function backoff(attempt: number, random: () => number = Math.random): number {
  const base = Math.min(MOST_MS, FIRST_MS * 2 ** Math.min(Math.max(attempt - 1, 0), 20));
  return Math.round(base * (0.75 + 0.5 * random()));
}
