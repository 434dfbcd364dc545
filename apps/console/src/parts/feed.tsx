import { useEffect, useRef, useState } from 'preact/hooks';
import { isFiltering, NO_FILTER, select, type Filter } from '../lib/feed';
import { clock, count, duration } from '../lib/format';
import type { Live } from '../lib/live';
import type { Entry, Outcome } from '../lib/types';
import { Pause, Play } from './icons';

/** So many lines are on the page; the others are counted. */
const SHOWN = 150;

const OUTCOMES: Record<Outcome, { word: string; tone: string }> = {
  ok: { word: 'OK', tone: 'ok' },
  error: { word: 'Error', tone: 'bad' },
  denied: { word: 'Denied', tone: 'warn' },
  event: { word: 'Event', tone: 'idle' },
};

function Line({ entry, admin }: { entry: Entry; admin: boolean }) {
  const { word, tone } = OUTCOMES[entry.outcome];
  const time = entry.durationMs === null ? null : duration(entry.durationMs);
  const what = entry.tool || entry.method;
  const context = [entry.target, admin && entry.user, entry.tool && entry.method].filter(Boolean).join(' · ');
  const more = [entry.session && `session ${entry.session}`, entry.trace && `trace ${entry.trace}`].filter(Boolean).join('\n');
  return (
    <tr data-outcome={entry.outcome} title={more || undefined}>
      <td class="time-cell"><time dateTime={new Date(entry.at).toISOString()}>{clock(entry.at)}</time></td>
      <td class="status-cell"><span class={`state ${tone}`}><i class="dot" aria-hidden="true" /><span class="narrow-unseen">{word}</span></span></td>
      <td class="call-cell">
        <span class="mono">{what}</span>
        {entry.code && <span class={`code ${tone}`}>{entry.code}</span>}
        {entry.why && <span class="why" title={entry.why}>{entry.why}</span>}
        <span class="under muted small">{context}</span>
      </td>
      <td class="wide-only muted">{entry.tool ? entry.method : ''}</td>
      <td class="wide-only">{entry.target}</td>
      {admin && <td class="wide-only user-cell">{entry.user}</td>}
      <td class="figure-cell">{time ? <>{time.value} <span class="unit">{time.unit}</span></> : ''}</td>
    </tr>
  );
}

interface Frozen {
  entries: Entry[];
  added: number;
}

interface Props {
  live: Live;
  admin: boolean;
  connect(): void;
}

export function Feed({ live, admin, connect }: Props) {
  const [filter, setFilter] = useState<Filter>(NO_FILTER);
  const [frozen, setFrozen] = useState<Frozen | null>(null);
  const [spoken, setSpoken] = useState('');
  const change = (part: Partial<Filter>) => setFilter({ ...filter, ...part });
  const search = useRef<HTMLInputElement>(null);

  const source = frozen ? frozen.entries : live.feed.newest();
  const { shown, found } = select(source, filter, SHOWN);
  const filtering = isFiltering(filter);
  const held = frozen ? live.added - frozen.added : 0;
  const any = frozen ? frozen.entries.length > 0 : live.feed.size > 0;

  // Spoken once somebody has stopped typing, not for each call that comes in.
  useEffect(() => {
    if (!filtering) {
      setSpoken('');
      return;
    }
    const timer = setTimeout(() => setSpoken(`${found} of the latest calls match the filter`), 800);
    return () => clearTimeout(timer);
  }, [filter]);

  const pause = () => setFrozen(frozen ? null : { entries: [...live.feed.newest()], added: live.added });
  const targets = [...live.targets].filter((name) => name !== '_gateway').sort();

  return (
    <section class="panel" aria-labelledby="feed-title">
      <div class="panel-head feed-head">
        <h2 id="feed-title">Activity</h2>
        <span class="muted small" data-feed-count>
          {frozen ? `Paused · ${count(held)} new` : filtering ? `${count(found)} of ${count(live.feed.size)}` : ''}
        </span>
        <div class="filters" role="group" aria-label="Filter the activity">
          <label><span class="unseen">Tool or method</span>
            <input type="search" ref={search} placeholder="Tool or method" value={filter.tool} maxLength={200}
              onInput={(event) => change({ tool: event.currentTarget.value })} /></label>
          <label><span class="unseen">Target</span>
            <select value={filter.target} onChange={(event) => change({ target: event.currentTarget.value })}>
              <option value="">All targets</option>
              {targets.map((name) => <option key={name} value={name}>{name}</option>)}
            </select></label>
          {admin && (
            <label><span class="unseen">User</span>
              <input type="search" placeholder="User" value={filter.user} maxLength={200}
                onInput={(event) => change({ user: event.currentTarget.value })} /></label>
          )}
          <label><span class="unseen">Status</span>
            <select value={filter.outcome}
              onChange={(event) => change({ outcome: event.currentTarget.value as Filter['outcome'] })}>
              <option value="">Any status</option>
              <option value="ok">OK</option>
              <option value="error">Errors</option>
              <option value="denied">Denied</option>
              <option value="event">Events</option>
            </select></label>
          <button class="secondary" type="button" aria-pressed={frozen !== null} onClick={pause}>
            {frozen ? <Play /> : <Pause />} {frozen ? 'Resume' : 'Pause'}
          </button>
        </div>
        <span class="unseen" role="status">{spoken}</span>
      </div>
      {shown.length > 0 ? (
        <div class="scroll feed" role="region" aria-label="The latest calls" tabIndex={0}>
          <table class="calls">
            <caption class="unseen">The latest requests, the newest first</caption>
            <thead>
              <tr>
                <th scope="col" class="time-cell">Time</th>
                <th scope="col" class="status-cell"><span class="narrow-unseen">Status</span></th>
                <th scope="col">Call</th>
                <th scope="col" class="wide-only">Method</th>
                <th scope="col" class="wide-only">Target</th>
                {admin && <th scope="col" class="wide-only">User</th>}
                <th scope="col" class="figure-cell">Took</th>
              </tr>
            </thead>
            <tbody>{shown.map((entry) => <Line key={entry.key} entry={entry} admin={admin} />)}</tbody>
          </table>
          {found > shown.length &&
            <p class="muted small feed-end">The latest {shown.length} of {count(found)}. Older calls are in the audit log.</p>}
        </div>
      ) : any ? (
        <div class="empty">
          <h3>Nothing matches</h3>
          <p>None of the latest {count(live.feed.size)} calls passes this filter.</p>
          <button class="secondary" type="button" onClick={() => { setFilter(NO_FILTER); search.current?.focus(); }}>
            Clear the filter
          </button>
        </div>
      ) : (
        <div class="empty">
          {live.loaded ? (
            <>
              <h3>No calls in the last 15 minutes</h3>
              <p>Calls appear here as they happen. Point an MCP client at this gateway to make the first one.</p>
              <button class="primary" type="button" onClick={connect}>Connect a client</button>
            </>
          ) : <p class="muted">Waiting for the gateway…</p>}
        </div>
      )}
    </section>
  );
}
