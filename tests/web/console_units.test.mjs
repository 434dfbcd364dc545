// The console's modules that need no browser: figures as text, the ring, percentiles, filters, the plot, the WebSocket
// that comes back. And that the whole of it is sound TypeScript.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { consoleDirectory, load } from './lib/console.mjs';

test('the console is strictly typed', () => {
  const { status, stdout } = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '--noEmit'],
    { cwd: consoleDirectory, encoding: 'utf8' });
  assert.equal(status, 0, stdout);
});

describe('figures', async () => {
  const f = await load('lib/format.ts');
  const table = (format, cases) => {
    for (const [value, text] of cases) assert.equal(format(value), text, String(value));
  };

  test('counts', () => table(f.count, [[0, '0'], [7, '7'], [9994, '9994'], [9995, '10k'], [12_345, '12.3k'], [123_456, '123k'],
    [999_499, '999k'], [999_500, '1M'], [2_500_000, '2.5M'], [-12_345, '-12.3k'], [NaN, '–'], [Infinity, '–']]));
  test('rates', () => table(f.rate, [[0, '0'], [0.003, '<0.01'], [0.01, '0.01'], [1.2, '1.20'], [9.94, '9.94'], [12.34, '12.3'],
    [340.4, '340'], [99.6, '100'], [12_000, '12k'], [NaN, '–']]));
  test('shares', () => table(f.percent, [[0, '0%'], [0.0004, '<0.1%'], [0.024, '2.4%'], [0.5, '50%'], [0.9999, '>99.9%'],
    [1, '100%'], [NaN, '–']]));
  test('durations', () => table(f.durationText, [[0, '<1 ms'], [0.05, '<0.1 ms'], [0.42, '0.4 ms'], [3, '3 ms'], [9.96, '10 ms'],
    [128.4, '128 ms'], [999.6, '1.00 s'], [1250, '1.25 s'], [12_340, '12.3 s'], [186_000, '3.1 min'], [-1, '–'], [NaN, '–']]));
  test('durations of an axis', () => table(f.axisDuration, [[0, '0'], [2.5, '2.5 ms'], [2500, '2.5 s'], [10_000, '10 s'], [200, '200 ms']]));
  test('spans', () => table(f.span, [[0, '0 s'], [59.9, '59 s'], [60, '1 min'], [3599, '59 min'], [7200, '2 h'], [200_000, '2 d'], [-1, '–']]));
  test('round numbers above', () => table(f.niceCeil, [[0, 1], [-3, 1], [NaN, 1], [0.3, 0.5], [1, 1], [1.01, 2], [2.4, 2.5], [26, 50],
    [51, 100], [1250, 2000]]));
  test('times of day', () => {
    const at = new Date(2026, 0, 2, 3, 4, 5).getTime();
    assert.equal(f.clock(at), '03:04:05');
    assert.equal(f.shortClock(at), '03:04');
    assert.equal(f.clock(NaN), '–');
  });
});

describe('ring', async () => {
  const { Ring } = await load('lib/ring.ts');

  test('keeps the newest, the newest first', () => {
    const ring = new Ring(3);
    assert.deepEqual([...ring.newest()], []);
    for (let i = 1; i <= 3; ++i) ring.push(i);
    assert.deepEqual([...ring.newest()], [3, 2, 1]);
    for (let i = 4; i <= 8; ++i) ring.push(i);
    assert.deepEqual([...ring.newest()], [8, 7, 6]);
    assert.equal(ring.size, 3);
    ring.clear();
    ring.push(9);
    assert.deepEqual([...ring.newest()], [9]);
  });

  test('holds at least one', () => {
    assert.throws(() => new Ring(0), RangeError);
    assert.throws(() => new Ring(1.5), RangeError);
  });
});

describe('latency', async () => {
  const { binOf, valueOf, percentiles, LatencyHistory, RateMeter } = await load('lib/latency.ts');

  test('a bin stands for what is put into it: exactly below 20 ms, by 5 % above', () => {
    for (let ms = 0; ms < 20; ++ms) assert.equal(valueOf(binOf(ms)), ms);
    for (const ms of [20, 57, 333, 1000, 4321, 60_000, 3_000_000]) {
      const value = valueOf(binOf(ms));
      assert.ok(value >= ms * 0.999 && value <= ms * 1.06, `${ms} -> ${value}`);
    }
    for (const odd of [-1, NaN]) assert.equal(binOf(odd), 0);
    assert.equal(binOf(Infinity), binOf(1e12));
  });

  test('percentiles of bins by rank', () => {
    assert.equal(percentiles(new Uint32Array(320), [0.5]), null);
    const bins = new Uint32Array(320);
    for (let ms = 1; ms <= 100; ++ms) ++bins[binOf(ms)];
    const [p50, p95, p99] = percentiles(bins, [0.5, 0.95, 0.99]);
    for (const [value, exact] of [[p50, 50], [p95, 95], [p99, 99]]) assert.ok(Math.abs(value - exact) <= exact * 0.06, `${value}`);
    const one = new Uint32Array(320);
    one[binOf(7)] = 1;
    assert.deepEqual(percentiles(one, [0, 0.5, 1]), [7, 7, 7]);
  });

  test('a window of slots: what is older or to come is left out, what leaves it is forgotten', () => {
    const now = 1_700_000_005_000;
    const history = new LatencyHistory(60_000, 10_000);
    history.add(now, 12, false, now);
    history.add(now - 9_000, 3, true, now);
    history.add(now + 20_000, 1, false, now);
    history.add(now - 60_000, 1, false, now);
    history.add(NaN, 1, false, now);
    let points = history.points(now);
    assert.equal(points.length, 6);
    assert.equal(points[5].at, 1_700_000_000_000);
    assert.deepEqual(points.map((point) => point.count), [0, 0, 0, 0, 1, 1]);
    assert.deepEqual(points.map((point) => point.errors), [0, 0, 0, 0, 1, 0]);
    assert.deepEqual(points[5].latency, [12, 12, 12]);
    assert.equal(points[0].latency, null);
    points = history.points(now + 50_000);
    assert.deepEqual(points.map((point) => point.count), [1, 0, 0, 0, 0, 0]);
    // The same place in the ring, a window later; what is late finds its slot taken.
    history.add(now + 60_000, 5, false, now + 60_000);
    history.add(now, 5, false, now + 10_000);
    assert.deepEqual(history.points(now + 60_000).map((point) => point.count), [0, 0, 0, 0, 0, 1]);
    history.clear();
    assert.ok(history.points(now).every((point) => point.count === 0));
  });

  test('the rate is that of whole seconds that have been watched', () => {
    const meter = new RateMeter(10);
    const start = 1_700_000_000_000;
    for (let s = 0; s < 20; ++s) for (let i = 0; i < 4; ++i) meter.add(start + s * 1000 + i);
    assert.equal(meter.rate(start + 20_000, start), 4);
    assert.equal(meter.rate(start + 25_000, start), 2);
    assert.equal(meter.rate(start + 60_000, start), 0);
    const fresh = new RateMeter(10);
    for (let i = 0; i < 6; ++i) fresh.add(start + i);
    assert.equal(fresh.rate(start + 2000, start), 3);
    assert.equal(fresh.rate(start + 100, start), 0);
  });
});

describe('feed', async () => {
  const feed = await load('lib/feed.ts');
  const activity = {
    timestamp: '2026-01-02T03:04:05.678901Z', user_id: 'u1', user_email: 'Ann@example.test', method: 'tools/call', target: 'files',
    tool: 'Read_File', duration_ms: 12, status: 'ok', decision: 'allow', session_id: 's', trace_id: 't',
  };
  const entry = (members) => feed.fromActivity({ ...activity, ...members });

  test('a call is the same whether it came live or from the log', () => {
    const live = entry({});
    const row = feed.fromLog({
      created_at: activity.timestamp, user_id: 'u1', user_email: 'Ann@example.test', method: 'tools/call', target_name: 'files',
      tool: 'Read_File', decision: 'allow', response_status: 200, error_code: null, duration_ms: 12, session_id: 's', trace_id: 't',
    });
    assert.deepEqual(row, live);
    assert.notEqual(entry({ duration_ms: 13 }).key, live.key);
    assert.equal(live.at, Date.parse('2026-01-02T03:04:05.678Z'));
  });

  test('outcomes', () => {
    assert.equal(entry({}).outcome, 'ok');
    assert.equal(entry({ error_code: 'tool_error' }).outcome, 'ok');
    assert.equal(entry({ status: 'error', decision: 'allow', error_code: 'upstream_timeout' }).outcome, 'error');
    assert.equal(entry({ status: 'error', decision: null }).outcome, 'error');
    assert.equal(entry({ status: 'error', decision: 'deny' }).outcome, 'denied');
    const row = { created_at: activity.timestamp, method: 'x', decision: null, error_code: 'unknown_item', duration_ms: 0 };
    assert.equal(feed.fromLog({ ...row, response_status: 404 }).outcome, 'error');
    assert.equal(feed.fromSession({ event: 'created', session_id: 's', user_id: 'u1' }, 5, () => 'ann').outcome, 'event');
  });

  test('filters', () => {
    const passes = (members, filter) => feed.matches(entry(members), { ...feed.NO_FILTER, ...filter });
    assert.ok(passes({}, {}));
    assert.ok(passes({}, { user: ' ann@ ' }));
    assert.ok(!passes({}, { user: 'bob' }));
    assert.ok(passes({}, { tool: 'read_' }));
    assert.ok(passes({}, { tool: 'TOOLS/' }));
    assert.ok(!passes({}, { tool: 'write' }));
    assert.ok(passes({}, { target: 'files' }));
    assert.ok(!passes({}, { target: 'file' }));
    assert.ok(passes({ decision: 'deny', status: 'error' }, { outcome: 'denied' }));
    assert.ok(!passes({ decision: 'deny', status: 'error' }, { outcome: 'error' }));
    assert.ok(!passes({}, { tool: 'read', user: 'bob' }));
    assert.ok(!feed.isFiltering({ ...feed.NO_FILTER, tool: '  ' }));
    assert.ok(feed.isFiltering({ ...feed.NO_FILTER, outcome: 'ok' }));
  });

  test('the first matches, and how many there are', () => {
    const entries = Array.from({ length: 10 }, (_, i) => entry({ tool: i % 2 ? 'odd' : 'even', duration_ms: i }));
    const { shown, found } = feed.select(entries, { ...feed.NO_FILTER, tool: 'odd' }, 3);
    assert.equal(found, 5);
    assert.deepEqual(shown.map((one) => one.durationMs), [1, 3, 5]);
  });

  test('why a call failed belongs to that call, once', () => {
    const causes = new feed.Causes();
    const failed = { ...activity, status: 'error', error_code: 'upstream_unreachable' };
    causes.put({ timestamp: '', user_id: 'u1', target: 'files', error_type: 'upstream_unreachable', message: 'refused' });
    assert.equal(causes.take({ ...failed, user_id: 'u2' }), '');
    assert.equal(causes.take(failed), 'refused');
    assert.equal(causes.take(failed), '');
    for (let i = 0; i < 1000; ++i) causes.put({ timestamp: '', user_id: `u${i}`, error_type: 'x', message: 'm' });
    assert.ok(causes.waiting.size <= 100);
  });
});

describe('plot', async () => {
  const { linePath, logTicks, areas } = await load('lib/plot.ts');

  test('a line has gaps, and lone values are dots', () => {
    const path = (values) => linePath(values, (i) => i * 10, (value) => 100 - value);
    assert.equal(path([1, 2, 3]), 'M0 99L10 98L20 97');
    assert.equal(path([null, 5, null, 6, 7, null]), 'M10 95h0.01M30 94L40 93');
    assert.equal(path([null, 4]), 'M10 96h0.01');
    assert.equal(path([null, null]), '');
  });

  test('ticks and bars', () => {
    assert.deepEqual(logTicks(1000), [1, 10, 100, 1000]);
    const points = [{ at: 0, count: 10, errors: 0 }, { at: 1, count: 0, errors: 0 }, { at: 2, count: 5, errors: 5 }];
    assert.deepEqual(areas(points, 10, (i) => i * 10, 50, 20, 8).map(({ x, y, height, error }) => [x, y, height, error]),
      [[-4, 30, 20, false], [16, 40, 10, false], [16, 40, 10, true]]);
  });
});

test('snippets are valid in their own language', async () => {
  const { snippets } = await load('lib/snippets.ts');
  const [shell, cursor, code] = snippets("http://gw.test/mcp?a='b", 'tok');
  const { stdout } = spawnSync('sh', ['-c', shell.text.replace('claude', 'printf "%s\\n"')], { encoding: 'utf8' });
  assert.deepEqual(stdout.split('\n'), ['mcp', 'add', '--transport', 'http', 'mcpgw', "http://gw.test/mcp?a='b", '--header',
    'Authorization: Bearer tok', '']);
  const server = { url: "http://gw.test/mcp?a='b", headers: { Authorization: 'Bearer tok' } };
  assert.deepEqual(JSON.parse(cursor.text), { mcpServers: { mcpgw: server } });
  assert.deepEqual(JSON.parse(code.text), { servers: { mcpgw: { type: 'http', ...server } } });
});

test('waiting grows to half a minute and is not the same for everybody', async () => {
  const { backoff } = await load('lib/backoff.ts');
  assert.deepEqual([1, 2, 3, 4, 5, 6, 7, 1000].map((n) => backoff(n, () => 0.5)), [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  assert.equal(backoff(1, () => 0), 750);
  assert.equal(backoff(6, () => 1), 37_500);
  assert.equal(backoff(0, () => 0.5), 1000);
});

describe('the WebSocket', async () => {
  const { ApiError, Stream } = await load('lib/stream.ts', 'lib/errors.ts');
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  const opened = (socket) => {
    socket.readyState = 1;
    socket.onopen?.();
  };
  const say = (socket, data) => {
    if (socket.readyState === 0) opened(socket);
    socket.onmessage({ data: typeof data === 'string' ? data : JSON.stringify(data) });
  };
  const metrics = { type: 'metrics', data: { a: 1 } };

  /** A world in which time passes when told to. `ticket()` is asked for each connection. */
  function world(ticket = async () => 'a ticket') {
    const w = {
      time: 0, timers: [], sockets: [], states: [], frames: [], opened: 0, refused: [], changed: 0,
      ticket: () => w.give(),
      give: ticket,
      open(given) {
        const socket = { ticket: given, readyState: 0, closed: false, onopen: null, onmessage: null, onclose: null,
          close() { this.closed = true; } };
        w.sockets.push(socket);
        return socket;
      },
      now: () => w.time,
      random: () => 0.5,
      after(ms, act) {
        const timer = { at: w.time + ms, act };
        w.timers.push(timer);
        return () => { w.timers = w.timers.filter((one) => one !== timer); };
      },
      async pass(ms) {
        w.time += ms;
        for (const timer of w.timers.filter((one) => one.at <= w.time)) {
          w.timers = w.timers.filter((one) => one !== timer);
          timer.act();
        }
        await settle();
      },
      get state() { return w.states.at(-1); },
      get socket() { return w.sockets.at(-1); },
      async live() {
        w.stream.start();
        await settle();
        say(w.socket, metrics);
        assert.equal(w.state.state, 'live');
        return w;
      },
    };
    w.stream = new Stream(w, {
      connection: (state) => w.states.push(state),
      opened: () => ++w.opened,
      frame: (type, data) => w.frames.push([type, data]),
      refused: (error) => w.refused.push(error.code),
      changed: () => ++w.changed,
    });
    return w;
  }
  const refuse = (...what) => async () => {
    throw new ApiError(...what);
  };

  test('is live with its first frame; what is no frame is left out', async () => {
    const w = world();
    w.stream.start();
    await settle();
    assert.equal(w.socket.ticket, 'a ticket');
    assert.equal(w.state.state, 'connecting');
    for (const odd of ['no json', '[]', 'null', '{"type":1,"data":{}}', '{"type":"x","data":null}']) say(w.socket, odd);
    say(w.socket, metrics);
    assert.equal(w.state.state, 'live');
    assert.equal(w.opened, 1);
    assert.deepEqual(w.frames, [['metrics', { a: 1 }]]);
  });

  test('comes back after longer and longer waits, with a new ticket each time', async () => {
    let tickets = 0;
    const w = await world(async () => `ticket ${++tickets}`).live();
    w.socket.onclose({ code: 1006 });
    assert.deepEqual([w.state.state, w.state.retryAt - w.time], ['waiting', 1000]);
    await w.pass(999);
    assert.equal(w.sockets.length, 1);
    await w.pass(1);
    assert.equal(w.socket.ticket, 'ticket 2');
    w.socket.onclose({ code: 1006 });
    assert.equal(w.state.retryAt - w.time, 2000);
    await w.pass(2000);
    say(w.socket, metrics);
    assert.equal(w.state.state, 'live');
    w.socket.onclose({ code: 1001 });  // after success it begins anew
    assert.deepEqual([w.state.retryAt - w.time, w.state.why], [1000, 'The gateway is restarting.']);
    assert.equal(w.opened, 2);
  });

  test('does not wait when told so, and only then', async () => {
    const w = await world().live();
    w.stream.retryNow();
    assert.equal(w.sockets.length, 1);
    w.socket.onclose({ code: 1013 });
    assert.equal(w.state.why, 'This page could not keep up.');
    w.stream.retryNow();
    await settle();
    assert.equal(w.sockets.length, 2);
    await w.pass(1000);  // the timer that was waiting is gone
    assert.equal(w.sockets.length, 2);
  });

  test('silence is the end of a connection', async () => {
    const w = await world().live();
    await w.pass(14_000);
    say(w.socket, metrics);
    await w.pass(14_000);
    assert.equal(w.state.state, 'live');
    await w.pass(1_000);
    assert.equal(w.state.state, 'waiting');
    assert.ok(w.sockets[0].closed);
    await w.pass(1000);
    await w.pass(15_000);  // and one that never says anything
    assert.equal(w.state.why, 'The gateway does not answer.');
    assert.ok(w.socket.closed);  // and would keep the next one waiting
  });

  test('a token that is good no more ends it', async () => {
    const w = await world().live();
    w.give = refuse(401, 'token_revoked', 'no');
    w.socket.onclose({ code: 1008 });
    await settle();
    assert.equal(w.changed, 1);
    assert.deepEqual(w.refused, ['token_revoked']);
    assert.deepEqual(w.timers, []);
    await w.pass(100_000);
    assert.equal(w.sockets.length, 1);
  });

  test('a user that has changed is connected again at once', async () => {
    const w = await world().live();
    w.socket.onclose({ code: 1008 });
    await settle();
    assert.equal(w.changed, 1);
    assert.equal(w.sockets.length, 2);
    // Closed like that before it was live it waits: no loop without a pause.
    w.socket.onclose({ code: 1008 });
    assert.equal(w.state.state, 'waiting');
  });

  test('a gateway that is busy names the time, within reason', async () => {
    const w = world(refuse(503, 'overloaded', 'The gateway is overloaded', 7000));
    w.stream.start();
    await settle();
    assert.deepEqual([w.state.retryAt - w.time, w.state.why], [7000, 'The gateway is overloaded']);
    w.give = refuse(429, 'rate_limited', 'no', 3_600_000);
    await w.pass(7000);
    assert.equal(w.state.retryAt - w.time, 60_000);
    w.give = async () => {
      throw new TypeError('network');
    };
    await w.pass(60_000);
    assert.equal(w.state.state, 'waiting');
    assert.deepEqual(w.refused, []);
  });

  test('stopped is stopped, whatever was on its way', async () => {
    let answer;
    const w = world(() => new Promise((resolve) => { answer = resolve; }));
    w.stream.start();
    w.stream.stop();
    answer('late');
    await settle();
    assert.equal(w.sockets.length, 0);
    assert.equal(w.state.state, 'stopped');
    const other = await world().live();
    other.stream.stop();
    assert.ok(other.socket.closed);
    assert.equal(other.socket.onmessage, null);
    assert.deepEqual(other.timers, []);
  });

  test('stopped before it is open it is closed as soon as it is: browsers report anything earlier as an error', async () => {
    const w = world();
    w.stream.start();
    await settle();
    const { socket } = w;
    w.stream.stop();
    assert.ok(!socket.closed);
    assert.equal(socket.onmessage, null);
    assert.equal(socket.onclose, null);
    opened(socket);
    assert.ok(socket.closed);
    assert.equal(w.state.state, 'stopped');
    assert.deepEqual([w.timers, w.sockets.length], [[], 1]);
  });
});
