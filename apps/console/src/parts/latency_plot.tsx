import { useEffect, useRef, useState } from 'preact/hooks';
import { axisDuration, clock, count, durationText, niceCeil, shortClock } from '../lib/format';
import type { Point } from '../lib/latency';
import type { Live } from '../lib/live';
import { areas, linePath, logTicks, type Scale } from '../lib/plot';

const NAMES = ['p50', 'p95', 'p99'] as const;
const HEIGHT = 208;
const TOP = 10;
const PLOT = 138;       // of the lines
const BARS_TOP = 160;
const BARS = 28;        // of the volume below them
const LEFT = 52;
const RIGHT = 8;

/** The width of an element, followed as it changes. */
function useWidth(): [{ current: HTMLDivElement | null }, number] {
  const element = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    if (!element.current) return;
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry?.contentRect.width ?? 0)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return [element, width];
}

function said(point: Point): string {
  const when = clock(point.at);
  if (!point.latency) return `${when}: no requests`;
  const values = NAMES.map((name, i) => `${name} ${durationText(point.latency?.[i] ?? 0)}`).join(', ');
  return `${when}: ${values}, ${point.count} requests${point.errors ? `, ${point.errors} errors` : ''}`;
}

export function LatencyPlot({ live }: { live: Live }) {
  const [element, width] = useWidth();
  const [scale, setScale] = useState<Scale>('linear');
  const [chosen, setChosen] = useState<number | null>(null);  // epoch of a slot, so that it moves with the time

  const now = live.now();
  const points = live.history.points(now);
  const last = points.length - 1;
  const slotMs = live.history.slotMs;
  const firstAt = points[0]?.at ?? 0;
  const index = chosen === null ? null : Math.min(last, Math.max(0, Math.round((chosen - firstAt) / slotMs)));
  const point = index === null ? null : points[index] as Point;
  const latest = [...points].reverse().find((one) => one.latency !== null) ?? null;
  const shown = point ?? latest;

  const most = Math.max(...points.map((one) => one.latency?.[2] ?? 0));
  const busiest = Math.max(1, ...points.map((one) => one.count));
  const inner = Math.max(0, width - LEFT - RIGHT);
  const x = (i: number) => LEFT + (last > 0 ? (i / last) * inner : 0);
  const step = niceCeil(Math.max(most, 4) / 4);
  const steps = Math.ceil(Math.max(most, 4) / step - 1e-9);
  const top = steps * step;
  const logTop = 10 ** Math.ceil(Math.log10(Math.max(most, 10)));
  const y = (ms: number) => {
    const part = scale === 'linear' ? ms / top : Math.log10(Math.max(ms, 1)) / Math.log10(logTop);
    return TOP + PLOT * (1 - Math.min(1, Math.max(0, part)));
  };
  const ticks = scale === 'linear' ? Array.from({ length: steps + 1 }, (_, n) => n * step) : logTicks(logTop);
  const minutes = width > 640 ? [15, 12, 9, 6, 3, 0] : [15, 10, 5, 0];

  const choose = (i: number) => setChosen(firstAt + Math.min(last, Math.max(0, i)) * slotMs);
  const follow = (event: PointerEvent) => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    choose(Math.round(((event.clientX - box.left - LEFT) / Math.max(1, inner)) * last));
  };
  const onKey = (event: KeyboardEvent) => {
    const from = index ?? last;
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, PageDown: from - 6, PageUp: from + 6, Home: 0, End: last }[event.key];
    if (event.key === 'Escape') setChosen(null);
    if (to === undefined) return;
    event.preventDefault();
    choose(to);
  };

  return (
    <section class="panel" aria-labelledby="latency-title">
      <div class="panel-head">
        <h2 id="latency-title">Latency</h2>
        <span class="muted small">{point ? clock(point.at) : 'last 15 minutes'}</span>
        <ul class="legend" aria-hidden="true">
          {NAMES.map((name, i) => (
            <li key={name}>
              <svg width="16" height="8"><path d="M0 4h16" class={`line ${name}`} /></svg>
              {name} <b>{shown?.latency ? durationText(shown.latency[i] ?? 0) : '–'}</b>
            </li>
          ))}
          {shown && <li class="wide-only"><b>{count(shown.count)}</b> requests in 10 s</li>}
        </ul>
        <fieldset class="segments">
          <legend class="unseen">Scale of the latency</legend>
          {(['linear', 'log'] as const).map((one) => (
            <label key={one}>
              <input type="radio" class="unseen" name="scale" checked={scale === one} onChange={() => setScale(one)} />
              <span>{one === 'linear' ? 'Linear' : 'Log'}</span>
            </label>
          ))}
        </fieldset>
      </div>
      <div ref={element} class="plot" role="slider" tabIndex={0} aria-label="Latency over the last 15 minutes"
        aria-valuemin={0} aria-valuemax={last} aria-valuenow={index ?? last}
        aria-valuetext={shown ? said(shown) : 'no requests in the last 15 minutes'}
        onPointerMove={follow} onPointerDown={follow} onPointerLeave={() => setChosen(null)} onBlur={() => setChosen(null)}
        onKeyDown={onKey}>
        {width > 0 && (
          <svg width={width} height={HEIGHT} aria-hidden="true" focusable="false">
            {ticks.map((ms) => (
              <g key={ms}>
                <path d={`M${LEFT} ${Math.round(y(ms)) + 0.5}H${width - RIGHT}`} class={ms === 0 ? 'axis' : 'grid'} />
                <text x={LEFT - 8} y={y(ms) + 4} text-anchor="end">{axisDuration(ms)}</text>
              </g>
            ))}
            {minutes.map((ago) => {
              const i = last - (ago / 15) * last;
              return (
                <text key={ago} x={x(i)} y={HEIGHT - 4} text-anchor={ago === 0 ? 'end' : ago === 15 ? 'start' : 'middle'}>
                  {ago === 0 ? 'now' : shortClock(now - ago * 60_000)}
                </text>
              );
            })}
            <path d={`M${LEFT} ${BARS_TOP + BARS + 0.5}H${width - RIGHT}`} class="axis" />
            <text x={LEFT - 8} y={BARS_TOP + 10} text-anchor="end">req</text>
            {areas(points, busiest, x, BARS_TOP + BARS, BARS, Math.max(1.5, inner / (last + 1) - 1.5)).map((bar) => (
              <rect key={bar.at} x={bar.x} y={bar.y} width={bar.width} height={bar.height} class={bar.error ? 'bar bad' : 'bar'} />
            ))}
            {([2, 1, 0] as const).map((which) => (
              <path key={which} class={`line ${NAMES[which]}`} d={linePath(points.map((one) => one.latency?.[which] ?? null), x, y)} />
            ))}
            {index !== null && point && (
              <g>
                <path d={`M${Math.round(x(index)) + 0.5} ${TOP}V${BARS_TOP + BARS}`} class="cursor" />
                {point.latency?.map((ms, i) => <circle key={i} cx={x(index)} cy={y(ms)} r="3" class={`spot ${NAMES[i]}`} />)}
              </g>
            )}
          </svg>
        )}
        {!latest && <p class="plot-empty muted">No requests in the last 15 minutes</p>}
      </div>
    </section>
  );
}
