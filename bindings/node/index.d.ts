/** mcpgw: an MCP gateway in your process. What takes a promise runs on threads of its own; nothing blocks the event loop. */

export const version: string;

/** The keys of docs/configuration.md, nested. */
export type Options = { [key: string]: string | number | boolean | null | string[] | Options };

export class McpgwError extends Error {
  constructor(code: string, reason: string, message: string, field?: string);
  /** The broad kind: "not_found", "unavailable". */
  code: string;
  /** A stable word for programs: "unknown_option". */
  reason: string;
  field: string;
}

/** A refusal of the REST API. */
export class ApiError extends Error {
  status: number;
  code: string;
}

// --- servers of this process ------------------------------------------------------------------------------------------------

export interface ToolDescription {
  description?: string;
  inputSchema?: object;
}

export interface Message {
  method?: string;
  id?: string | number;
  params?: any;
}

/** An MCP server of functions. Of both eras: 2026-07-28 to a gateway whose target says `protocol_era: "modern"`, else up to 2025-11-25. */
export class Server {
  constructor(name: string, options?: { version?: string });
  readonly name: string;
  readonly version: string;
  /** Messages that have come, oldest first. */
  readonly received: Message[];
  /** A value with `content` is a whole CallToolResult; any other one becomes a text. */
  tool(name: string, run: (args: any) => unknown, description?: ToolDescription): this;
  receivedCalls(tool?: string): { name: string; arguments?: any }[];
  receive(text: string, deliver: (text: string) => void): Promise<void>;
}

/** Thrown by a tool: its text becomes the result, marked as an error. */
export class ToolError extends Error {}

// --- storage ----------------------------------------------------------------------------------------------------------------

export interface StoredRecord {
  collection: string;
  key: string;
  /** A JSON text, to be kept as it is. */
  value: string;
  version: number;
}

export interface Operation {
  op: 'check' | 'put' | 'erase';
  collection: string;
  key: string;
  value?: string;
  /** Missing: no condition. 0: must not exist. */
  expected_version?: number;
}

export interface Change {
  collection: string;
  key: string;
  /** 0: erased. */
  version: number;
}

/** Where a gateway keeps its records (docs/storage.md). Methods answer at once, not by a promise. */
export abstract class Storage {
  abstract get(collection: string, key: string): StoredRecord | null | undefined;
  /** Keys that begin with `prefix` and are greater than `after`, in byte order, at most `limit` (0: all). */
  abstract list(collection: string, prefix: string, after: string, limit: number): StoredRecord[];
  /** All or none. The new versions: 0 for check and erase, null for an erase that found nothing. */
  abstract commit(operations: Operation[]): (number | null)[];
  /** Throws when the backend does not answer. */
  ping(): void;
  /** Tells that another process has written; without changes: something may have been missed. */
  changed(changes?: Change[]): Promise<void>;
}

export function versionConflict(operation: Operation): McpgwError;

// --- gateway ----------------------------------------------------------------------------------------------------------------

export interface ConnectionParameters {
  target: { id: string; name: string; slug: string; transport_type: string; url: string; command: string; args: string[] };
  principal_user_id: string;
  /** Secret. */
  env: Record<string, string>;
  /** Secret. */
  credential: string;
}

export interface LogLine {
  level: 'trace' | 'debug' | 'info' | 'warn' | 'error';
  module: string;
  message: string;
  fields: Record<string, string>;
}

export interface Parts {
  /** Default: option database.url, else memory. */
  storage?: Storage;
  /** Servers of this process, by the name of the target. */
  servers?: Record<string, Server>;
  /** Decides per connection instead; undefined: not one of this process. */
  connect?: (parameters: ConnectionParameters) => Server | undefined | null;
  log?: (line: LogLine) => void;
}

export interface RequestParts {
  headers?: Record<string, string> | [string, string][];
  body?: string | Uint8Array | null;
  remoteAddress?: string;
  /** Tells the gateway that the client has gone. */
  signal?: AbortSignal;
}

export interface StreamedAnswer {
  status: number;
  headers: [string, string][];
  body: ReadableStream<Uint8Array>;
}

export interface Answer {
  status: number;
  headers: [string, string][];
  body: Buffer;
  header(name: string): string | undefined;
  text(): string;
  json(): any;
}

/** A gateway on a port. */
export class HttpServer {
  readonly port: number;
  readonly url: string;
  close(): Promise<void>;
}

/** One MCP endpoint in front of many servers. An open one keeps the process alive. */
export class Gateway {
  protected constructor(handle: never);
  static create(options?: Options, parts?: Parts): Promise<Gateway>;
  readonly repository: Repository;
  handle(method: string, target: string, parts?: RequestParts): Promise<Answer>;
  stream(method: string, target: string, parts?: RequestParts): Promise<StreamedAnswer>;
  /** As the global fetch, but the request ends in this gateway, whatever its host. */
  fetch: (input: string | URL | Request, init?: RequestInit) => Promise<Response>;
  /** The REST API (docs/rest-api.md) with an administrator's rights; throws ApiError. */
  admin(method: string, target: string, body?: unknown, how?: { userId?: string }): Promise<any>;
  /** Makes a target of a server of this process; gives the target. */
  addServer(server: Server, target?: object): Promise<any>;
  serve(options?: Options): Promise<HttpServer>;
  close(graceMs?: number): Promise<void>;
}

// --- policies and credentials -----------------------------------------------------------------------------------------------

/** Users, targets, policies and credentials. */
export class Repository {
  private constructor();
  static open(options?: Options, parts?: { storage?: Storage }): Promise<Repository>;
  admin(method: string, target: string, body?: unknown, how?: { userId?: string }): Promise<any>;
}

/** A Repository, or whatever has one: a Gateway. */
export type HasRepository = Repository | { readonly repository: Repository };

export interface Principal {
  userId?: string;
  role?: string;
  groups?: string[];
}

export interface Decision {
  allowed: boolean;
  reason: string;
  policyId: string;
  policyName: string;
  /** With `explain`. */
  considered: { policyId: string; policyName: string; effect: string; priority: number; matched: boolean; why: string }[];
}

export class PolicyEngine {
  constructor(owner: HasRepository);
  /** `user`: id or email; `target`: id or name. Somebody or something unknown is denied. Reads memory only. */
  evaluate(
    question: { target: string; name: string; type?: 'tool' | 'resource' | 'prompt'; explain?: boolean } & (
      | { user: string; principal?: undefined }
      | { principal: Principal; user?: undefined }
    ),
  ): Decision;
}

export class TokenResolver {
  constructor(owner: HasRepository);
  resolve(question: { user: string; target: string }): { value: string; scope: string; scopeValue: string; fromEnv: boolean } | null;
}

export class EnvResolver {
  constructor(owner: HasRepository);
  resolve(question: { user: string; target: string }): {
    values: Record<string, string>;
    sources: { key: string; scope: string; scopeValue: string }[];
  };
}
