import { keep, kept } from './keep';

export type Theme = 'system' | 'light' | 'dark';

const KEY = 'mcpgw.theme';
const forAllTabs = () => localStorage;

export function storedTheme(): Theme {
  const text = kept(forAllTabs, KEY);
  return text === 'light' || text === 'dark' ? text : 'system';
}

/** The style sheet follows the system's scheme unless the page says otherwise. */
export function applyTheme(theme: Theme = storedTheme()): void {
  keep(forAllTabs, KEY, theme === 'system' ? '' : theme);
  if (theme === 'system') {
    delete document.documentElement.dataset['theme'];
  } else {
    document.documentElement.dataset['theme'] = theme;
  }
}
