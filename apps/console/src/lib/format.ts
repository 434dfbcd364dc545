// Numbers and times as people read them. Widths stay steady, so that figures in a column can be compared.

/** "0", "0.042", "3.4", "128", "12.4k": three figures that matter. */
export function count(value: number): string {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size >= 999_500) return `${trimmed(value / 1e6)}M`;
  if (size >= 9_995) return `${trimmed(value / 1e3)}k`;
  return Number.isInteger(value) ? String(value) : trimmed(value);
}

function trimmed(value: number): string {
  const size = Math.abs(value);
  const digits = size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return value.toFixed(digits).replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '');
}

/** Requests a second: "0", "0.03", "1.2", "340". */
export function rate(value: number): string {
  if (!Number.isFinite(value)) return '–';
  if (value > 0 && value < 0.01) return '<0.01';
  return value >= 9_995 ? count(value) : value >= 99.5 ? value.toFixed(0) : value >= 9.95 ? value.toFixed(1)
    : value === 0 ? '0' : value.toFixed(2);
}

/** A share of 1: "0%", "<0.1%", "2.4%", "100%". */
export function percent(share: number): string {
  if (!Number.isFinite(share)) return '–';
  const value = share * 100;
  if (value === 0) return '0%';
  if (value < 0.1) return '<0.1%';
  if (value >= 99.95) return value < 100 ? '>99.9%' : '100%';
  return `${value >= 9.95 ? value.toFixed(0) : value.toFixed(1)}%`;
}

export interface Measure {
  value: string;
  unit: string;
}

/** A duration with its unit apart: <1 ms, 0.4 ms, 12 ms, 1.25 s, 3.1 min. Nought is what was less than a whole one. */
export function duration(ms: number): Measure {
  if (!Number.isFinite(ms) || ms < 0) return { value: '–', unit: '' };
  if (ms === 0) return { value: '<1', unit: 'ms' };
  if (ms < 0.1) return { value: '<0.1', unit: 'ms' };
  if (ms < 9.95) return { value: Number.isInteger(ms) ? String(ms) : ms.toFixed(1), unit: 'ms' };
  if (ms < 999.5) return { value: ms.toFixed(0), unit: 'ms' };
  if (ms < 9_995) return { value: (ms / 1000).toFixed(2), unit: 's' };
  if (ms < 59_950) return { value: (ms / 1000).toFixed(1), unit: 's' };
  return { value: (ms / 60_000).toFixed(1), unit: 'min' };
}

export function durationText(ms: number): string {
  const { value, unit } = duration(ms);
  return unit ? `${value} ${unit}` : value;
}

/** On an axis: "0", "2.5 s", "10 s". */
export function axisDuration(ms: number): string {
  const { value, unit } = duration(ms);
  return ms === 0 ? '0' : `${value.replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '')} ${unit}`;
}

/** "0 s", "42 s", "5 min", "3 h", "12 d". */
export function span(seconds: number): string {
  if (!Number.isFinite(seconds) || seconds < 0) return '–';
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

const two = (value: number): string => String(value).padStart(2, '0');

/** Local time, "14:03:09". */
export function clock(at: number): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return '–';
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export function shortClock(at: number): string {
  return clock(at).slice(0, 5);
}

/** The next "round" number from `value` on: 1, 2, 2.5 or 5 times a power of ten. */
export function niceCeil(value: number): number {
  if (!(value > 0) || !Number.isFinite(value)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  for (const step of [1, 2, 2.5, 5, 10]) if (value <= step * power * (1 + 1e-9)) return step * power;
  return 10 * power;
}
