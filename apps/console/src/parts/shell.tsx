import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { exists, gatewayUrl } from '../lib/api';
import { applyTheme, storedTheme, type Theme } from '../lib/theme';
import type { User } from '../lib/types';
import { Book, Gauge, Leave, Mark, Moon, Screen, Sun } from './icons';

interface Props {
  user: User;
  signOut(): void;
  children: ComponentChildren;
}

const THEMES: { theme: Theme; label: string; icon: () => ComponentChildren }[] = [
  { theme: 'system', label: 'As the system', icon: Screen },
  { theme: 'light', label: 'Light', icon: Sun },
  { theme: 'dark', label: 'Dark', icon: Moon },
];

/** What stands around every page. */
export function Shell({ user, signOut, children }: Props) {
  const [theme, setTheme] = useState<Theme>(storedTheme());
  const [docs, setDocs] = useState(false);
  useEffect(() => {
    void exists('docs').then(setDocs);
  }, []);
  return (
    <div class="shell">
      <a class="skip" href="#main">Skip to content</a>
      <header class="rail">
        <p class="brand"><Mark /> mcpgw</p>
        <nav aria-label="Pages">
          <ul>
            <li><a href="#main" aria-current="page"><Gauge /> Dashboard</a></li>
            {docs && <li><a href={gatewayUrl('docs').href} target="_blank" rel="noopener"><Book /> API reference</a></li>}
          </ul>
        </nav>
        <div class="rail-end">
          <fieldset class="segments icons" title="Colours">
            <legend class="unseen">Colours</legend>
            {THEMES.map(({ theme: one, label, icon: Sign }) => (
              <label key={one} title={label}>
                <input type="radio" name="theme" class="unseen" checked={theme === one}
                  onChange={() => { applyTheme(one); setTheme(one); }} />
                <span><Sign /><span class="unseen">{label}</span></span>
              </label>
            ))}
          </fieldset>
          <div class="who">
            <div class="who-text">
              <span class="who-email" title={user.email}>{user.email}</span>
              <span class="who-role">{user.role}</span>
            </div>
            <button class="quiet square" type="button" onClick={signOut} title="Sign out">
              <Leave /><span class="unseen">Sign out</span>
            </button>
          </div>
        </div>
      </header>
      <main id="main" tabIndex={-1}>{children}</main>
    </div>
  );
}
