import { Answer, Gateway, Options, Parts, Server } from './index.js';

/** The answer to an MCP request. */
export interface Reply {
  readonly status: number;
  readonly message: any;
  readonly notifications: any[];
  readonly result: any;
  /** A result, and not one that tells of a tool's failure. */
  readonly ok: boolean;
  readonly errorCode: number | undefined;
  readonly error: string;
  readonly text: string;
}

/** Somebody who talks to the gateway: initializes with the first request, keeps the session. */
export interface User {
  readonly id: string;
  readonly email: string;
  token: string;
  sessionId: string | undefined;
  /** Goes on in this revision: "2026-07-28" has no session, others begin with a handshake. */
  speak(version: string): void;
  post(message: object, headers?: Record<string, string>): Promise<Reply>;
  request(method: string, params?: object): Promise<Reply>;
  callTool(name: string, args?: object): Promise<Reply>;
  listTools(): Promise<string[]>;
  api(method: string, target: string, body?: unknown): Promise<Answer>;
}

/** A gateway in memory, with what a test author wants. */
export class TestGateway extends Gateway {
  static create(options?: Options, parts?: Parts): Promise<TestGateway>;
  server(name: string, target?: object): Promise<Server>;
  /** The user, made with the first mention; "admin" is an administrator. */
  asUser(name: string, how?: { role?: string; groups?: string[] }): Promise<User>;
  allow(user: string, target?: string, pattern?: string): Promise<string>;
  deny(user: string, target?: string, pattern?: string): Promise<string>;
  auditRows(filters?: Record<string, string>): Promise<any[]>;
}

/** A gateway for a test; close it at the end. */
export function gateway(options?: Options, parts?: Parts): Promise<TestGateway>;
