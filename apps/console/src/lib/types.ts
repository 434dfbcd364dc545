// What the REST API and the WebSocket say. Members that may be missing are marked; nothing else is relied on.

export interface User {
  id: string;
  email: string;
  role: string;
}

export interface TargetNumbers {
  id: string | null;
  name: string;
  state?: string;
  request_count: number;
  error_count: number;
  error_rate: number;
  rps: number;
  p50_latency_ms: number;
  p95_latency_ms: number;
  p99_latency_ms: number;
  in_flight: number;
}

export interface Snapshot {
  timestamp: string;
  total_requests: number;
  total_errors: number;
  error_rate: number;
  p50_latency_ms: number;
  p95_latency_ms: number;
  p99_latency_ms: number;
  in_flight: number;
  active_sessions: number;
  streams: number;
  uptime_s: number;
  version?: string;
  targets: TargetNumbers[];
}

export interface Activity {
  timestamp: string;
  user_id?: string;
  user_email?: string;
  method: string;
  target?: string;
  tool?: string;
  duration_ms: number;
  status: string;
  decision?: string | null;
  error_code?: string | null;
  session_id?: string;
  trace_id?: string;
}

export interface SessionEvent {
  event: string;
  session_id: string;
  user_id?: string;
}

export interface UpstreamEvent {
  timestamp: string;
  user_id?: string;
  target?: string;
  error_type: string;
  message: string;
}

export interface LogRow {
  created_at: string;
  user_id?: string;
  user_email?: string;
  method: string;
  target_name?: string;
  tool?: string;
  decision: string | null;
  response_status: number;
  error_code: string | null;
  duration_ms: number;
  session_id?: string;
  trace_id?: string;
}

export type Outcome = 'ok' | 'error' | 'denied' | 'event';

/** A line of the feed: a call, or something that happened to a session or a server. */
export interface Entry {
  /** Equal for the same call, whether it came live or from the log. */
  key: string;
  at: number;
  outcome: Outcome;
  user: string;
  method: string;
  target: string;
  tool: string;
  /** Null for what has no duration. */
  durationMs: number | null;
  /** An error code. */
  code: string;
  /** Why a call failed, or what happened; a sentence. */
  why: string;
  session: string;
  trace: string;
}
