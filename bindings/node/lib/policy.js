// Who may use what, and with which credential: answers out of memory, with or without a gateway.
import { call, json, lib, takeText, text, wait } from './native.js';
import { handleOf } from './storage.js';

/** A refusal of the REST API: `status` is HTTP's, `code` the API's own word. */
export class ApiError extends Error {
  constructor(status, code, message) {
    super(`${status} ${code}: ${message}`);
    this.name = 'ApiError';
    this.status = status;
    this.code = code;
  }
}

export async function callAdmin(f, handle, method, target, body, userId) {
  const status = [0];
  const out = [null];
  await wait(f, handle, ...text(userId ?? ''), ...text(method), ...text(target), ...json(body), status, out);
  const answer = takeText(out[0]);
  const parsed = answer === '' ? undefined : JSON.parse(answer);
  if (status[0] >= 400) throw new ApiError(status[0], parsed?.code ?? '', parsed?.error ?? '');
  return parsed;
}

const freeing = (free) => new FinalizationRegistry((handle) => lib[free](handle));
const repositories = freeing('mcpgw_repository_free');

const secret = Symbol('made by a factory');

export class Repository {
  constructor(key, handle) {
    if (key !== secret) throw new TypeError('Repository.open() makes one');
    this.handle = handle;
    repositories.register(this, handle);
  }

  /** Users, targets, policies and credentials without a gateway. */
  static async open(options, { storage } = {}) {
    const out = [null];
    await wait(lib.mcpgw_repository_open, ...json(options), handleOf(storage), out);
    return new Repository(secret, out[0]);
  }

  static ofGateway(gateway) {
    const out = [null];
    call(lib.mcpgw_gateway_repository, gateway, out);
    return new Repository(secret, out[0]);
  }

  /** The REST API with an administrator's rights; `userId`: for whose sake. */
  admin(method, target, body, { userId } = {}) {
    return callAdmin(lib.mcpgw_repository_admin, this.handle, method, target, body, userId);
  }
}

function ofRepository(kind, ask) {
  const registry = freeing(`${kind}_free`);
  return class {
    #handle;
    constructor(owner) {
      const out = [null];
      call(lib[`${kind}_create`], (owner instanceof Repository ? owner : owner.repository).handle, out);
      this.#handle = out[0];
      registry.register(this, out[0]);
    }
    ask(question) {
      const out = [null];
      call(lib[`${kind}_${ask}`], this.#handle, ...json(question), out);
      return JSON.parse(takeText(out[0]));
    }
  };
}

/** May somebody use an item of a target? Default deny. */
export class PolicyEngine extends ofRepository('mcpgw_policy_engine', 'evaluate') {
  evaluate({ user, principal, target, type = 'tool', name, explain = false }) {
    const who = principal === undefined ? { user } : { principal: { user_id: principal.userId ?? '', role: principal.role ?? 'user', groups: principal.groups ?? [] } };
    const answer = this.ask({ ...who, target, type, name, explain });
    return {
      allowed: answer.allowed,
      reason: answer.reason,
      policyId: answer.policy_id,
      policyName: answer.policy_name,
      considered: (answer.considered ?? []).map((one) => ({
        policyId: one.policy_id,
        policyName: one.policy_name,
        effect: one.effect,
        priority: one.priority,
        matched: one.matched,
        why: one.why,
      })),
    };
  }
}

/** Which stored credential a user's calls to a target carry. */
export class TokenResolver extends ofRepository('mcpgw_token_resolver', 'resolve') {
  resolve({ user, target }) {
    const answer = this.ask({ user, target });
    return answer === null ? null : { value: answer.value, scope: answer.scope, scopeValue: answer.scope_value, fromEnv: answer.from_env };
  }
}

/** The environment of a user's calls to a target. */
export class EnvResolver extends ofRepository('mcpgw_env_resolver', 'resolve') {
  resolve({ user, target }) {
    const answer = this.ask({ user, target });
    return { values: answer.values, sources: answer.sources.map((one) => ({ key: one.key, scope: one.scope, scopeValue: one.scope_value })) };
  }
}
