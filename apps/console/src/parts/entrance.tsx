import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import * as api from '../lib/api';
import type { ApiError } from '../lib/errors';
import type { User } from '../lib/types';
import { Mark } from './icons';

interface Props {
  /** Why the person is here again; empty for somebody new. */
  message: string;
  entered(user: User, token: string): void;
}

/** Sign in, or make an account: the first one of a gateway is its administrator's. */
export function Entrance({ message, entered }: Props) {
  const [making, setMaking] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState('');
  const [needsSetupToken, setNeedsSetupToken] = useState(false);
  const first = useRef<HTMLInputElement>(null);
  useLayoutEffect(() => first.current?.focus(), []);
  const form = useRef<HTMLFormElement>(null);

  const submit = async (event: Event) => {
    event.preventDefault();
    if (busy || !form.current) return;
    const data = new FormData(form.current);
    const text = (name: string) => String(data.get(name) ?? '');
    setBusy(true);
    setError('');
    try {
      const { user, token } = making
        ? await api.register(text('email'), text('password'), text('setup_token'))
        : await api.login(text('email'), text('password'));
      entered(user, token);
    } catch (failure) {
      const { code, message: why } = failure as ApiError;
      if (code === 'setup_token_required') setNeedsSetupToken(true);
      setError(why);
      setBusy(false);
    }
  };

  const change = () => {
    setMaking(!making);
    setError('');
  };

  return (
    <main class="entrance">
      <div class="entrance-card">
        <p class="brand"><Mark /> mcpgw</p>
        <h1>{making ? 'Create an account' : 'Sign in'}</h1>
        <div role="alert">
          {error ? <p class="notice bad">{error}</p> : message ? <p class="notice">{message}</p> : null}
        </div>
        <p class="muted small" hidden={!making}>The first account of a new gateway becomes its administrator.</p>
        <form ref={form} onSubmit={submit}>
          <label>
            <span>Email</span>
            <input name="email" type="email" autocomplete="username" required maxLength={254} ref={first} />
          </label>
          <label>
            <span>Password</span>
            <input name="password" type="password" required maxLength={1024}
              autocomplete={making ? 'new-password' : 'current-password'} />
          </label>
          {making && needsSetupToken && (
            <label>
              <span>Setup token</span>
              <input name="setup_token" type="password" autocomplete="off" required />
            </label>
          )}
          <button class="primary wide" type="submit" disabled={busy}>
            {making ? 'Create account' : 'Sign in'}
          </button>
        </form>
        <p class="small muted center">
          {making ? 'You have an account?' : 'New here?'}{' '}
          <button class="link" type="button" onClick={change}>{making ? 'Sign in' : 'Create an account'}</button>
        </p>
      </div>
    </main>
  );
}
