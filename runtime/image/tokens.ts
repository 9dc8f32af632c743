import { RuntimeError } from "../errors.ts";
import { boundedText } from "./body.ts";
import { basicAuthorization, type Challenge, type Credentials } from "./auth.ts";

const MAX_TOKEN_RESPONSE_BYTES = 1 << 20;
/** What a token is good for when its server does not say (distribution spec, token authentication). */
const DEFAULT_LIFETIME_MS = 60_000;
/** Taken off a token's lifetime, so that none expires on the way. */
const EXPIRY_MARGIN_MS = 10_000;

/** An `Authorization` value and how long it may be used. */
export interface Authorization {
  value: string;
  expiresAtMs: number;
}

/** How {@linkcode answerChallenge} reaches the token server. */
export type TokenFetch = (url: URL, init: RequestInit) => Promise<Response>;

/**
 * Answers a registry's challenge: basic with the credentials, bearer by asking the realm for a token that may pull
 * (distribution token authentication; OAuth2 refresh for identity tokens). Throws `unauthenticated` when there is nothing
 * to answer with, or the realm refuses.
 */
export async function answerChallenge(
  challenge: Challenge,
  context: {
    registry: string;
    repository: string;
    credentials: Credentials | undefined;
    nowMs: number;
    fetch: TokenFetch;
    signal?: AbortSignal;
  },
): Promise<Authorization> {
  const { registry, credentials, nowMs } = context;
  if (challenge.scheme === "basic") {
    if (credentials?.kind !== "basic") {
      throw new RuntimeError(
        "unauthenticated",
        `Cannot use registry "${registry}": it wants a user name and password`,
      );
    }
    return { value: basicAuthorization(credentials.username, credentials.password), expiresAtMs: Infinity };
  }
  const { realm, service } = challenge.parameters;
  const scope = challenge.parameters.scope ?? `repository:${context.repository}:pull`;
  const url = parseRealm(realm, registry);
  const response = credentials?.kind === "identity-token"
    ? await context.fetch(url, {
      method: "POST",
      headers: { "content-type": "application/x-www-form-urlencoded" },
      body: new URLSearchParams({
        grant_type: "refresh_token",
        refresh_token: credentials.token,
        client_id: "hypercore",
        scope,
        ...(service === undefined ? {} : { service }),
      }).toString(),
    })
    : await context.fetch(withQuery(url, { service, scope }), {
      headers: credentials === undefined
        ? {}
        : { authorization: basicAuthorization(credentials.username, credentials.password) },
    });
  return await readToken(response, { registry, nowMs, realmHost: url.host });
}

async function readToken(
  response: Response,
  context: { registry: string; realmHost: string; nowMs: number },
): Promise<Authorization> {
  const refuse = (reason: string, code: "unauthenticated" | "unavailable"): never => {
    throw new RuntimeError(
      code,
      `Cannot get a token for registry "${context.registry}" from "${context.realmHost}": ${reason}`,
    );
  };
  const text = await boundedText(response, MAX_TOKEN_RESPONSE_BYTES);
  if (response.status === 401 || response.status === 403) {
    return refuse(`the credentials were refused (status ${response.status})`, "unauthenticated");
  }
  if (response.status !== 200) return refuse(`status ${response.status}`, "unavailable");
  let body: Record<string, unknown> | null;
  try {
    body = JSON.parse(text) as Record<string, unknown> | null;
  } catch {
    // The body may hold a token; it goes into no message.
    return refuse("the answer is not JSON", "unavailable");
  }
  const token = body?.token ?? body?.access_token;
  if (typeof token !== "string" || !/^[\x21-\x7e]+$/.test(token)) {
    return refuse("the answer holds no token", "unavailable");
  }
  const lifetimeMs = typeof body?.expires_in === "number" ? body.expires_in * 1000 : DEFAULT_LIFETIME_MS;
  return {
    value: `Bearer ${token}`,
    expiresAtMs: context.nowMs + Math.max(0, lifetimeMs - EXPIRY_MARGIN_MS),
  };
}

function parseRealm(realm: string | undefined, registry: string): URL {
  try {
    return new URL(realm ?? "");
  } catch (cause) {
    throw new RuntimeError("unavailable", `Cannot use registry "${registry}": its token realm is not a URL`, {
      cause,
    });
  }
}

function withQuery(url: URL, query: Record<string, string | undefined>): URL {
  const result = new URL(url);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) result.searchParams.set(name, value);
  }
  return result;
}
