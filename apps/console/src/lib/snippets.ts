export interface Snippet {
  client: string;
  where: string;
  text: string;
}

/** For a shell: in single quotes nothing is special but the quote. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** What MCP clients want to be told about a server over Streamable HTTP. */
export function snippets(url: string, token: string): Snippet[] {
  const headers = { Authorization: `Bearer ${token}` };
  const json = (value: unknown): string => JSON.stringify(value, null, 2);
  return [
    { client: 'Claude Code', where: 'In a shell',
      text: `claude mcp add --transport http mcpgw ${quoted(url)} \\\n  --header ${quoted(`Authorization: Bearer ${token}`)}` },
    { client: 'Cursor', where: '.cursor/mcp.json', text: json({ mcpServers: { mcpgw: { url, headers } } }) },
    { client: 'VS Code', where: '.vscode/mcp.json', text: json({ servers: { mcpgw: { type: 'http', url, headers } } }) },
  ];
}
