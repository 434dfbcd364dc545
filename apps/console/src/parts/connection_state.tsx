import { useEffect, useReducer } from 'preact/hooks';
import type { Connection } from '../lib/stream';

interface Props {
  connection: Connection;
  retry(): void;
}

export function ConnectionState({ connection, retry }: Props) {
  const [, redraw] = useReducer((n: number) => n + 1, 0);
  const waiting = connection.state === 'waiting';
  useEffect(() => {
    if (!waiting) return;
    const timer = setInterval(() => redraw(undefined as never), 1000);
    return () => clearInterval(timer);
  }, [waiting]);

  const word = { connecting: 'Connecting', live: 'Live', waiting: 'Reconnecting', stopped: 'Stopped' }[connection.state];
  const left = connection.state === 'waiting' ? Math.ceil((connection.retryAt - Date.now()) / 1000) : 0;
  return (
    <div class={`connection ${connection.state}`} data-connection={connection.state}>
      {/* What is said aloud does not count seconds. */}
      <span role="status">
        <i class="dot" aria-hidden="true" />
        {word}
        {connection.state === 'waiting' && <span class="unseen">: {connection.why}</span>}
      </span>
      {connection.state === 'waiting' && (
        <>
          <span class="muted" aria-hidden="true" title={connection.why}>{left > 0 ? `in ${left} s` : 'now'}</span>
          <button class="link" type="button" onClick={retry}>Retry now</button>
        </>
      )}
    </div>
  );
}
