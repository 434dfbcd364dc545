import { useEffect, useMemo, useReducer, useRef, useState } from 'preact/hooks';
import type { ApiError } from '../lib/errors';
import { span } from '../lib/format';
import { Live } from '../lib/live';
import type { User } from '../lib/types';
import { Connect } from './connect';
import { ConnectionState } from './connection_state';
import { Feed } from './feed';
import { Plug } from './icons';
import { LatencyPlot } from './latency_plot';
import { Numbers } from './numbers';
import { Targets } from './targets';

interface Props {
  user: User;
  ended(error: ApiError): void;
  userChanged(): void;
}

export function Dashboard({ user, ended, userChanged }: Props) {
  const live = useMemo(() => new Live(user, ended, userChanged), []);
  const [, redraw] = useReducer((n: number) => n + 1, 0);
  const [connecting, setConnecting] = useState(false);
  const opener = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    const forget = live.subscribe(() => redraw(undefined as never));
    live.start();
    // Without traffic the plot moves on all the same.
    const timer = setInterval(() => redraw(undefined as never), 5000);
    return () => {
      clearInterval(timer);
      forget();
      live.stop();
    };
  }, [live]);

  const admin = user.role === 'admin';
  const stale = live.connection.state === 'waiting';
  return (
    <>
      <div class="page-head">
        <h1>Dashboard</h1>
        {!admin && <span class="tag" title="Administrators see the calls of everybody">Your calls</span>}
        <ConnectionState connection={live.connection} retry={live.retryNow} />
        <button class="secondary" type="button" ref={opener} onClick={() => setConnecting(true)}>
          <Plug /> Connect a client
        </button>
      </div>
      <div class={stale ? 'stale' : undefined}>
        <Numbers live={live} />
        <LatencyPlot live={live} />
        <Targets snapshot={live.snapshot} admin={admin} />
        <Feed live={live} admin={admin} connect={() => setConnecting(true)} />
      </div>
      <footer class="page-foot muted small">
        {live.snapshot && `mcpgw ${live.snapshot.version ?? ''} · up ${span(live.snapshot.uptime_s)}`}
      </footer>
      {connecting && <Connect close={() => { setConnecting(false); opener.current?.focus(); }} />}
    </>
  );
}
