import type { Point } from './latency';

export type Scale = 'linear' | 'log';

const at = (value: number): string => String(Math.round(value * 10) / 10);

/** A line with gaps where a value is null; a value that stands alone is a dot. */
export function linePath(values: readonly (number | null)[], x: (i: number) => number, y: (value: number) => number): string {
  let out = '';
  let drawing = false;
  values.forEach((value, i) => {
    if (value === null) {
      drawing = false;
      return;
    }
    if (drawing) out += `L${at(x(i))} ${at(y(value))}`;
    else out += `M${at(x(i))} ${at(y(value))}${values[i + 1] === null || i === values.length - 1 ? 'h0.01' : ''}`;
    drawing = true;
  });
  return out;
}

/** 1, 10, 100, ... up to `top`, a power of ten. */
export function logTicks(top: number): number[] {
  const out: number[] = [];
  for (let tick = 1; tick <= top * 1.0001; tick *= 10) out.push(tick);
  return out;
}

export interface Bar {
  at: string;
  x: number;
  y: number;
  width: number;
  height: number;
  error: boolean;
}

/** A bar for each slot with requests, and one in front of it for those that failed. */
export function areas(points: readonly Point[], most: number, x: (i: number) => number, bottom: number, height: number,
  width: number): Bar[] {
  const out: Bar[] = [];
  points.forEach((point, i) => {
    for (const error of [false, true]) {
      const value = error ? point.errors : point.count;
      if (value === 0) continue;
      const size = Math.max(1.5, (value / Math.max(1, most)) * height);
      out.push({ at: `${point.at} ${error}`, x: x(i) - width / 2, y: bottom - size, width, height: size, error });
    }
  });
  return out;
}
