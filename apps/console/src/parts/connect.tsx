import { useEffect, useRef, useState } from 'preact/hooks';
import * as api from '../lib/api';
import { snippets } from '../lib/snippets';
import { Close, Copy } from './icons';

function CopyButton({ text, what }: { text: string; what: string }) {
  const [done, setDone] = useState('');
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone('Copied');
    } catch {
      setDone('Select and copy it by hand');  // pages over plain HTTP may not write to the clipboard
    }
    setTimeout(() => setDone(''), 3000);
  };
  return (
    <button class="secondary small" type="button" onClick={copy} aria-label={`Copy ${what}`}>
      <Copy /> <span role="status">{done || 'Copy'}</span>
    </button>
  );
}

/** How to point an MCP client at this gateway. */
export function Connect({ close }: { close(): void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [token, setToken] = useState('');
  const [name, setName] = useState('My MCP client');
  const [error, setError] = useState('');
  const [busy, setBusy] = useState(false);
  const [client, setClient] = useState(0);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);

  const make = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setError('');
    try {
      setToken(await api.createToken(name.trim()));
    } catch (failure) {
      setError((failure as Error).message);
    }
    setBusy(false);
  };

  const url = api.gatewayUrl('mcp').href;
  const all = snippets(url, token || 'YOUR_TOKEN');
  const snippet = all[client] ?? all[0];
  return (
    <dialog ref={dialog} aria-labelledby="connect-title" onClose={close}>
      <div class="dialog-head">
        <h2 id="connect-title">Connect a client</h2>
        <button class="quiet square" type="button" onClick={() => dialog.current?.close()} title="Close">
          <Close /><span class="unseen">Close</span>
        </button>
      </div>
      <h3>1. Address</h3>
      <div class="copy-line"><code data-mcp-url>{url}</code><CopyButton text={url} what="the address" /></div>
      <h3>2. Token</h3>
      {token ? (
        <>
          <div class="copy-line"><code class="token" data-new-token>{token}</code><CopyButton text={token} what="the token" /></div>
          <p class="muted small">It is shown this once. It may call MCP servers for you, and nothing else.</p>
        </>
      ) : (
        <form class="inline" onSubmit={make}>
          <label class="grow"><span class="unseen">Name of the token</span>
            <input value={name} maxLength={100} required onInput={(event) => setName(event.currentTarget.value)} /></label>
          <button class="primary" type="submit" disabled={busy}>Create token</button>
        </form>
      )}
      {error && <p class="notice bad" role="alert">{error}</p>}
      <h3>3. Configuration</h3>
      <fieldset class="segments">
        <legend class="unseen">Client</legend>
        {all.map((one, i) => (
          <label key={one.client}>
            <input type="radio" class="unseen" name="client" checked={client === i} onChange={() => setClient(i)} />
            <span>{one.client}</span>
          </label>
        ))}
      </fieldset>
      {snippet && (
        <div class="snippet">
          <div class="snippet-head"><span class="muted small">{snippet.where}</span><CopyButton text={snippet.text} what="the configuration" /></div>
          <pre tabIndex={0}><code>{snippet.text}</code></pre>
        </div>
      )}
    </dialog>
  );
}
