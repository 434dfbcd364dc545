// Storage of the browser, which some settings forbid: then nothing is kept beyond the page.

export function kept(where: () => Storage, key: string): string {
  try {
    return where().getItem(key) ?? '';
  } catch {
    return '';
  }
}

/** An empty text is not kept. */
export function keep(where: () => Storage, key: string, text: string): void {
  try {
    if (text) where().setItem(key, text);
    else where().removeItem(key);
  } catch {
    // It is in memory all the same.
  }
}
