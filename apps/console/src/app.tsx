import { useCallback, useEffect, useState } from 'preact/hooks';
import * as api from './lib/api';
import type { ApiError } from './lib/errors';
import type { User } from './lib/types';
import { Entrance } from './parts/entrance';
import { Shell } from './parts/shell';
import { Dashboard } from './parts/dashboard';

const WHY: Record<string, string> = {
  token_revoked: 'You were signed out: this session has been revoked.',
  token_expired: 'Your session has expired. Sign in again.',
  insufficient_scope: 'This token may not use the console.',
};

type Phase = { name: 'starting' } | { name: 'unreachable'; why: string } | { name: 'out'; message: string } | { name: 'in'; user: User };

export function App() {
  const [phase, setPhase] = useState<Phase>(api.hasToken() ? { name: 'starting' } : { name: 'out', message: '' });

  const signedOut = useCallback((error?: ApiError) => {
    api.keepToken('');
    const message = error ? WHY[error.code] ?? 'You were signed out: your session is no longer valid.' : '';
    setPhase({ name: 'out', message });
  }, []);

  const askWho = useCallback(async () => {
    try {
      const user = await api.me();
      setPhase({ name: 'in', user });
    } catch (failure) {
      const error = failure as ApiError;
      if (error.status === 401 || error.status === 403) signedOut(error);
      else setPhase((now) => (now.name === 'in' ? now : { name: 'unreachable', why: error.message }));
    }
  }, [signedOut]);

  useEffect(() => {
    if (api.hasToken()) void askWho();
  }, [askWho]);

  const signOut = useCallback(() => {
    // Asked with the token before this tab forgets it. When it fails the token runs out by itself.
    api.logout().catch(() => {});
    signedOut();
  }, [signedOut]);

  if (phase.name === 'starting') return <main class="splash" aria-busy="true"><p class="muted">Loading…</p></main>;
  if (phase.name === 'unreachable')
    return (
      <main class="splash">
        <h1>The gateway does not answer</h1>
        <p class="muted" role="alert">{phase.why}</p>
        <button class="primary" onClick={() => { setPhase({ name: 'starting' }); void askWho(); }}>Try again</button>
      </main>
    );
  if (phase.name === 'out')
    return (
      <Entrance
        message={phase.message}
        entered={(user, token) => {
          api.keepToken(token);
          setPhase({ name: 'in', user });
        }}
      />
    );
  const { user } = phase;
  return (
    <Shell user={user} signOut={signOut}>
      <Dashboard key={`${user.id} ${user.role}`} user={user} ended={signedOut} userChanged={askWho} />
    </Shell>
  );
}
