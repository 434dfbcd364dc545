import { count, duration, percent, rate } from '../lib/format';
import type { Snapshot, TargetNumbers } from '../lib/types';

const STATES: Record<string, { word: string; tone: string }> = {
  up: { word: 'Up', tone: 'ok' },
  idle: { word: 'Idle', tone: 'idle' },
  degraded: { word: 'Degraded', tone: 'warn' },
  down: { word: 'Down', tone: 'bad' },
  disabled: { word: 'Disabled', tone: 'idle' },
};

function Ms({ ms, calls, narrow }: { ms: number; calls: number; narrow?: boolean }) {
  const where = narrow ? 'figure-cell' : 'figure-cell wide-only';
  if (calls === 0) return <td class={`${where} muted`}>–</td>;
  const { value, unit } = duration(ms);
  return <td class={where}>{value} <span class="unit">{unit}</span></td>;
}

function Row({ target }: { target: TargetNumbers }) {
  const own = target.name === '_gateway';
  const state = target.state === undefined || own ? null : STATES[target.state] ?? { word: target.state, tone: 'idle' };
  const health = state && <span class={`state ${state.tone}`}><i class="dot" aria-hidden="true" />{state.word}</span>;
  const calls = target.request_count;
  return (
    <tr data-target={target.name}>
      <th scope="row" class="name-cell">
        {own ? <span title="Requests that concern no target">gateway itself</span> : target.name}
        {health && <span class="under">{health}</span>}
      </th>
      <td class="wide-only">{health ?? <span class="muted">–</span>}</td>
      <td class="figure-cell">{rate(target.rps)}</td>
      <td class="figure-cell wide-only">{count(calls)}</td>
      <td class="figure-cell">
        {target.error_count > 0
          ? <><span class={target.error_rate >= 0.05 ? 'bad' : undefined}>{percent(target.error_rate)}</span>
            <span class="muted wide-only"> · {count(target.error_count)}</span></>
          : <span class="muted">0%</span>}
      </td>
      <Ms ms={target.p50_latency_ms} calls={calls} />
      <Ms ms={target.p95_latency_ms} calls={calls} narrow />
      <Ms ms={target.p99_latency_ms} calls={calls} />
      <td class="figure-cell wide-only">{count(target.in_flight)}</td>
    </tr>
  );
}

export function Targets({ snapshot, admin }: { snapshot: Snapshot | null; admin: boolean }) {
  const targets = snapshot?.targets ?? [];
  const real = targets.filter((target) => target.name !== '_gateway');
  const down = real.filter((target) => target.state === 'down').map((target) => target.name);
  return (
    <section class="panel" aria-labelledby="targets-title">
      <div class="panel-head">
        <h2 id="targets-title">Targets</h2>
        <span class="muted small">{real.length > 0 && `${count(real.length)} · last 5 minutes`}</span>
        <span class="unseen" role="status">{down.length > 0 && `Down: ${down.join(', ')}`}</span>
      </div>
      {snapshot && real.length === 0 ? (
        <div class="empty">
          <h3>No target yet</h3>
          {admin ? (
            <p>A target is an MCP server behind the gateway. Add one on the machine of the gateway:
              {' '}<code>mcpgw target add docs --url https://docs.example.com/mcp</code></p>
          ) : (
            <p>No MCP server is open to you. Ask an administrator for a policy that allows you one.</p>
          )}
        </div>
      ) : (
        <div class="scroll" role="region" aria-label="Table of the targets" tabIndex={0}>
          <table class="targets">
            <caption class="unseen">Health and traffic of each target in the last five minutes</caption>
            <thead>
              <tr>
                <th scope="col">Target</th>
                <th scope="col" class="wide-only">State</th>
                <th scope="col" class="figure-cell">Req / s</th>
                <th scope="col" class="figure-cell wide-only">Requests</th>
                <th scope="col" class="figure-cell">Errors</th>
                <th scope="col" class="figure-cell wide-only">p50</th>
                <th scope="col" class="figure-cell">p95</th>
                <th scope="col" class="figure-cell wide-only">p99</th>
                <th scope="col" class="figure-cell wide-only">In flight</th>
              </tr>
            </thead>
            <tbody>{targets.map((target) => <Row key={target.id ?? target.name} target={target} />)}</tbody>
          </table>
        </div>
      )}
    </section>
  );
}
