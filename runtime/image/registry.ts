import { RuntimeError } from "../errors.ts";
import { type CredentialStore, parseChallenges } from "./auth.ts";
import { type Endpoint, type EndpointOptions, endpointsOf, requireAllowedScheme } from "./endpoints.ts";
import {
  type Descriptor,
  digestOf,
  INDEX_TYPES,
  MANIFEST_TYPES,
  manifestType,
  MAX_MANIFEST_BYTES,
} from "./manifest.ts";
import type { Reference } from "./reference.ts";
import {
  MAX_BLOB_ATTEMPTS,
  parseRetryAfter,
  retryDelayMs,
  TransientError,
  type Wait,
  waitMs,
  withRetries,
} from "./retry.ts";
import { boundedBytes } from "./body.ts";
import { answerChallenge, type Authorization } from "./tokens.ts";

/** Time without a byte after which a connection counts as dead, in milliseconds. */
export const STALL_TIMEOUT_MS = 30_000;
/** Parts in which that time is waited for. */
const STALL_PARTS = 10;
const MAX_REDIRECTS = 5;
/** Tokens that are remembered, one a repository; the oldest gives way, and is asked for anew. */
export const MAX_CACHED_TOKENS = 256;

export interface RegistryClientOptions extends EndpointOptions {
  credentials: CredentialStore;
  stallTimeoutMs?: number;
  /** Replaced in tests. */
  wait?: Wait;
}

/** A manifest or index as the registry sent it, digest checked. */
export interface FetchedManifest {
  bytes: Uint8Array;
  mediaType: string;
  digest: string;
  /** The endpoint that had it; its blobs are looked for there first. */
  endpoint: Endpoint;
}

/**
 * A client of the OCI distribution spec, pull side. Bodies come exactly as sent (no content coding), redirects are followed
 * by hand so that credentials stay with their host, and nothing has a total time-out: a stall has.
 */
export class RegistryClient implements Disposable {
  readonly #options: RegistryClientOptions;
  readonly #http = Deno.createHttpClient({ poolIdleTimeout: 15_000 });
  readonly #tokens = new Map<string, Authorization>();
  readonly #stallTimeoutMs: number;
  readonly #wait: Wait;

  constructor(options: RegistryClientOptions) {
    this.#options = options;
    this.#stallTimeoutMs = options.stallTimeoutMs ?? STALL_TIMEOUT_MS;
    this.#wait = options.wait ?? waitMs;
  }

  [Symbol.dispose](): void {
    this.#http.close();
  }

  /** Fetches a manifest by tag or digest from the first endpoint that has it. */
  async manifest(reference: Reference, target: string, signal?: AbortSignal): Promise<FetchedManifest> {
    const what = `pull image "${reference.name}"`;
    let failure: unknown;
    for (const endpoint of endpointsOf(reference, this.#options)) {
      try {
        return await withRetries(async () => {
          using exchange = await this.#get(reference, endpoint, `manifests/${target}`, {
            headers: { accept: [...INDEX_TYPES, ...MANIFEST_TYPES].join(", ") },
            signal,
          });
          const bytes = await exchange.guard(
            boundedBytes(exchange.response, MAX_MANIFEST_BYTES, "the manifest"),
          );
          const digest = digestOf(bytes);
          if (target.startsWith("sha256:") && digest !== target) {
            throw new RuntimeError(
              "failed",
              `Cannot ${what}: the manifest's digest is ${digest}, not ${target}`,
            );
          }
          const mediaType = manifestType(
            bytes,
            exchange.response.headers.get("content-type") ?? "",
            reference.name,
          );
          return { bytes, digest, mediaType, endpoint };
        }, {
          what,
          wait: this.#wait,
          signal,
          // Most likely it speaks plain HTTP: the next endpoint tells.
          isFinal: (error) => endpoint.hasPlainAlternative && !error.isAnswer,
        });
      } catch (error) {
        if (signal?.aborted) throw error;
        failure = preferred(failure, error, endpoint);
      }
    }
    throw failure;
  }

  /**
   * Streams a blob from `offset` to its end. A connection that breaks or stalls is made anew from where it broke; only
   * failures without a byte in between count against the limit of attempts. A blob that a mirror cannot give is taken from
   * the endpoints after it. Ends after exactly `descriptor.size` bytes.
   */
  async *blob(
    reference: Reference,
    descriptor: Descriptor,
    options: { endpoint: Endpoint; offset: number; signal?: AbortSignal },
  ): AsyncIterable<Uint8Array> {
    let position = options.offset;
    let failure: unknown;
    for (const endpoint of fallbacks(options.endpoint, endpointsOf(reference, this.#options))) {
      try {
        for await (
          const chunk of this.#blobFrom(reference, descriptor, { ...options, endpoint, offset: position })
        ) {
          position += chunk.length;
          yield chunk;
        }
        return;
      } catch (error) {
        if (options.signal?.aborted) throw error;
        failure = preferred(failure, error, endpoint);
      }
    }
    throw failure;
  }

  async *#blobFrom(
    reference: Reference,
    descriptor: Descriptor,
    options: { endpoint: Endpoint; offset: number; signal?: AbortSignal },
  ): AsyncIterable<Uint8Array> {
    const what = `pull image "${reference.name}": blob ${descriptor.digest}`;
    const { endpoint, signal } = options;
    let position = options.offset;
    for (let failures = 0; position < descriptor.size;) {
      try {
        using exchange = await this.#get(reference, endpoint, `blobs/${descriptor.digest}`, {
          headers: position > 0 ? { range: `bytes=${position}-` } : {},
          signal,
        });
        let skip = position - startOf(exchange.response, position, what);
        for await (const chunk of exchange.chunks()) {
          const rest = skip >= chunk.length ? undefined : skip > 0 ? chunk.subarray(skip) : chunk;
          skip = Math.max(0, skip - chunk.length);
          if (rest === undefined) continue;
          if (position + rest.length > descriptor.size) {
            throw new RuntimeError(
              "failed",
              `Cannot ${what}: it is larger than the ${descriptor.size} bytes announced`,
            );
          }
          position += rest.length;
          failures = 0;
          yield rest;
        }
        if (position < descriptor.size) throw new TransientError("the connection ended early");
      } catch (error) {
        if (!(error instanceof TransientError)) throw error;
        if (++failures >= MAX_BLOB_ATTEMPTS) {
          throw new RuntimeError("unavailable", `Cannot ${what}: ${error.message}`, { cause: error });
        }
        await this.#wait(retryDelayMs(failures, Math.random(), error.afterMs), signal);
      }
    }
  }

  /** One GET on a repository: authenticates, follows redirects, and gives only a 200 or 206. */
  async #get(
    reference: Reference,
    endpoint: Endpoint,
    path: string,
    options: { headers: Record<string, string>; signal?: AbortSignal },
  ): Promise<Exchange> {
    const url = new URL(`${endpoint.baseUrl}/v2/${reference.repository}/${path}`);
    const tokenKey = `${endpoint.baseUrl}/${reference.repository}`;
    const cached = this.#tokens.get(tokenKey);
    // A token just made is used whatever its lifetime: some registries give a few seconds.
    let token = cached !== undefined && cached.expiresAtMs > Date.now() ? cached : undefined;
    for (let authenticated = false;; authenticated = true) {
      const exchange = await this.#follow(url, {
        headers: { ...options.headers, ...(token === undefined ? {} : { authorization: token.value }) },
        signal: options.signal,
      });
      const { status } = exchange.response;
      if (status === 200 || status === 206) return exchange;
      using _ = exchange;
      if (status === 401 && !authenticated) {
        token = await this.#authenticate(exchange.response, {
          reference,
          endpoint,
          tokenKey,
          signal: options.signal,
        });
        continue;
      }
      throw refusal(exchange.response, reference, path, token !== undefined);
    }
  }

  async #authenticate(
    response: Response,
    context: { reference: Reference; endpoint: Endpoint; tokenKey: string; signal?: AbortSignal },
  ): Promise<Authorization> {
    const { reference, endpoint, tokenKey, signal } = context;
    const registry = endpoint.credentialsHost;
    const challenge = parseChallenges(response.headers.get("www-authenticate") ?? "")[0];
    if (challenge === undefined) {
      throw new RuntimeError(
        "unauthenticated",
        `Cannot use registry "${registry}": it asks for no kind of credentials known here`,
      );
    }
    const authorization = await answerChallenge(challenge, {
      registry,
      repository: reference.repository,
      credentials: await this.#options.credentials(registry, signal),
      nowMs: Date.now(),
      signal,
      fetch: async (url, init) => {
        requireAllowedScheme(url, this.#options.insecureRegistries);
        const exchange = await this.#send(url, { ...init, signal });
        // A token answer is small: taken whole, so that the exchange can end here.
        using _ = exchange;
        const bytes = await exchange.guard(boundedBytes(exchange.response, 1 << 20, "the token"));
        return new Response(new Uint8Array(bytes), { status: exchange.response.status });
      },
    });
    this.#tokens.delete(tokenKey);
    if (this.#tokens.size >= MAX_CACHED_TOKENS) this.#tokens.delete(this.#tokens.keys().next().value!);
    this.#tokens.set(tokenKey, authorization);
    return authorization;
  }

  async #follow(
    start: URL,
    init: { headers: Record<string, string>; signal?: AbortSignal },
  ): Promise<Exchange> {
    let url = start;
    let headers = init.headers;
    for (let hops = 0;; hops++) {
      const exchange = await this.#send(url, { headers, signal: init.signal });
      const location = exchange.response.headers.get("location");
      if (![301, 302, 303, 307, 308].includes(exchange.response.status) || location === null) return exchange;
      using _ = exchange;
      const next = URL.parse(location, url);
      if (next === null) {
        throw new RuntimeError(
          "failed",
          `Cannot reach registry "${start.host}": it redirects to something that is not a URL`,
        );
      }
      if (hops >= MAX_REDIRECTS) {
        throw new RuntimeError(
          "failed",
          `Cannot reach registry "${start.host}": more than ${MAX_REDIRECTS} redirects`,
        );
      }
      if (next.protocol !== "https:" && url.protocol === "https:") {
        throw new RuntimeError(
          "failed",
          `Cannot reach registry "${start.host}": it redirects from HTTPS to ${next.protocol}//`,
        );
      }
      requireAllowedScheme(next, this.#options.insecureRegistries);
      if (next.origin !== url.origin) {
        const { authorization: _secret, ...others } = headers;
        headers = others;
      }
      url = next;
    }
  }

  async #send(url: URL, init: Omit<RequestInit, "signal"> & { signal?: AbortSignal }): Promise<Exchange> {
    const exchange = new Exchange(this.#stallTimeoutMs, init.signal);
    try {
      const headers = new Headers(init.headers);
      // Deno decodes coded bodies; digests are over the bytes as they are.
      headers.set("accept-encoding", "identity");
      headers.set("user-agent", "hypercore");
      exchange.response = await exchange.guard(
        fetch(url, { ...init, headers, redirect: "manual", client: this.#http, signal: exchange.signal }),
      );
    } catch (error) {
      exchange[Symbol.dispose]();
      throw error;
    }
    return exchange;
  }
}

/** One request and its response under a stall timer; disposing ends both. */
class Exchange implements Disposable {
  response!: Response;
  readonly #controller = new AbortController();
  readonly signal: AbortSignal;

  constructor(readonly stallTimeoutMs: number, readonly outer: AbortSignal | undefined) {
    this.signal = outer ? AbortSignal.any([outer, this.#controller.signal]) : this.#controller.signal;
  }

  /**
   * Waits for a promise that depends on the peer; a stall or a broken connection becomes a TransientError. Time in which this
   * process itself was held up hardly counts: timers come before the bytes that have arrived meanwhile.
   */
  async guard<T>(promise: Promise<T>): Promise<T> {
    const stall = new TransientError(`no byte for ${this.stallTimeoutMs} ms`);
    let parts = STALL_PARTS;
    const wait = () => setTimeout(onPart, this.stallTimeoutMs / STALL_PARTS);
    const onPart = () => {
      if (--parts === 0) this.#controller.abort(stall);
      else timer = wait();
    };
    let timer = wait();
    try {
      return await promise;
    } catch (error) {
      if (this.outer?.aborted) throw this.outer.reason;
      if (error instanceof RuntimeError || error instanceof TransientError) throw error;
      if (this.#controller.signal.aborted) throw this.#controller.signal.reason;
      throw new TransientError(reasonOf(error), { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  /** The body; the timer runs only while the peer is waited for, not while the consumer works. */
  async *chunks(): AsyncIterable<Uint8Array> {
    const reader = this.response.body?.getReader();
    if (reader === undefined) return;
    for (;;) {
      const { value, done } = await this.guard(reader.read());
      if (done) return;
      yield value;
    }
  }

  [Symbol.dispose](): void {
    this.#controller.abort(new TransientError("the exchange has ended"));
  }
}

/** Where a blob is looked for: after a mirror all that stands behind it, after the registry itself nowhere else. */
function fallbacks(first: Endpoint, all: readonly Endpoint[]): Endpoint[] {
  if (!first.isMirror) return [first];
  return [first, ...all.slice(all.findIndex((endpoint) => endpoint.baseUrl === first.baseUrl) + 1)];
}

/** Where a response to a range request starts; a server that ignores the range sends all. */
function startOf(response: Response, wanted: number, what: string): number {
  if (response.status === 200) return 0;
  const start = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "")?.[1];
  if (start === undefined || Number(start) > wanted) {
    throw new RuntimeError("failed", `Cannot ${what}: the registry sent another range than was asked for`);
  }
  return Number(start);
}

function refusal(response: Response, reference: Reference, path: string, hadCredentials: boolean): Error {
  const { status } = response;
  const what = `Cannot pull image "${reference.name}"`;
  if (status === 429 || status === 502 || status === 503 || status === 504 || status === 500) {
    const afterMs = parseRetryAfter(response.headers.get("retry-after"), Date.now());
    return new TransientError(`the registry answers with status ${status}`, { afterMs, isAnswer: true });
  }
  if (status === 401 || status === 403) {
    return new RuntimeError(
      "unauthenticated",
      `${what}: ${
        hadCredentials ? "the registry refuses the credentials" : "the registry wants credentials"
      } (status ${status})`,
    );
  }
  if (status === 404) {
    return new RuntimeError(
      "not-found",
      `${what}: the registry has no ${
        path.startsWith("manifests/") ? "such image" : path.replace("blobs/", "blob ")
      }`,
    );
  }
  return new RuntimeError("failed", `${what}: the registry answers with status ${status}`);
}

/** Of two endpoints' failures the more telling: an answer beats silence, the registry beats a mirror. */
function preferred(earlier: unknown, later: unknown, endpoint: Endpoint): unknown {
  if (earlier === undefined || endpoint.isMirror) return later;
  const isSilence = later instanceof RuntimeError && later.code === "unavailable";
  const wasAnswer = earlier instanceof RuntimeError && earlier.code !== "unavailable";
  return isSilence && wasAnswer ? earlier : later;
}

/** Why a fetch failed: the innermost cause says it, less the URL, whose query may hold a secret. */
function reasonOf(error: unknown): string {
  let inner = error;
  while (inner instanceof Error && inner.cause instanceof Error) inner = inner.cause;
  return (inner as Error).message.replace(/^error sending request for url \([^)]*\): /, "");
}
