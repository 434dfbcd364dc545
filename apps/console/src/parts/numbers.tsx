import type { ComponentChildren } from 'preact';
import { count, duration, percent, rate } from '../lib/format';
import type { Live } from '../lib/live';

interface CellProps {
  name: string;
  value: string;
  unit?: string;
  note?: ComponentChildren;
  tone?: 'bad' | undefined;
}

function Cell({ name, value, unit, note, tone }: CellProps) {
  return (
    <div class="number" data-number={name}>
      <dt>{name}</dt>
      <dd>
        <span class={`figure ${tone ?? ''}`}>{value}{unit && <span class="unit"> {unit}</span>}</span>
        <span class="note">{note ?? ' '}</span>
      </dd>
    </div>
  );
}

function Latency({ name, ms, calls }: { name: string; ms: number; calls: number }) {
  const { value, unit } = calls > 0 ? duration(ms) : { value: '–', unit: '' };
  return <Cell name={name} value={value} unit={unit} note="latency" />;
}

/** The numbers of now. Rates and latencies are those of the last five minutes, unless they say otherwise. */
export function Numbers({ live }: { live: Live }) {
  const now = live.snapshot;
  const calls = now?.total_requests ?? 0;
  const average = now ? calls / Math.max(1, Math.min(300, now.uptime_s)) : 0;
  const failing = now !== null && now.error_rate >= 0.05;
  return (
    <section aria-label="Numbers of the last five minutes" class="panel">
      <dl class="numbers">
        <Cell name="Requests / s" value={now ? rate(live.rate()) : '–'} note={now ? `5 min avg ${rate(average)}` : undefined} />
        <Cell name="Errors" value={now && calls > 0 ? percent(now.error_rate) : '–'} tone={failing ? 'bad' : undefined}
          note={now ? `${count(now.total_errors)} of ${count(calls)}` : undefined} />
        <Latency name="p50" ms={now?.p50_latency_ms ?? 0} calls={calls} />
        <Latency name="p95" ms={now?.p95_latency_ms ?? 0} calls={calls} />
        <Latency name="p99" ms={now?.p99_latency_ms ?? 0} calls={calls} />
        <Cell name="In flight" value={now ? count(now.in_flight) : '–'} note="requests" />
        <Cell name="Sessions" value={now ? count(now.active_sessions) : '–'} note="active" />
        <Cell name="Streams" value={now ? count(now.streams) : '–'} note="open" />
      </dl>
    </section>
  );
}
