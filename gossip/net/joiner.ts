import type { Endpoint } from "../endpoint.ts";
import type { Log } from "../log.ts";
import type { Random } from "../random.ts";
import { SerfError } from "../serf/queries.ts";
import { resolveEndpoints, type Resolver } from "./resolve.ts";
import type { Clock } from "./transport.ts";

/** Addresses contacted at once. */
const PARALLEL = 4;
/** Pause before the second try of a join, and the longest between two. */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;

/** What may be said of a join. */
export interface JoinOptions {
  /** Whether user events from before are not delivered; true by default. */
  ignoreOld?: boolean;
  /** Ends the join with its reason. */
  signal?: AbortSignal;
}

/** What may be said of a join that is tried again. */
export interface RetryOptions extends JoinOptions {
  /** Pause before the second try; it doubles from try to try. */
  firstPauseMs?: number;
  longestPauseMs?: number;
}

/** What a {@linkcode Joiner} needs. */
export interface JoinerOptions {
  clock: Clock;
  random: Random;
  resolver: Resolver;
  log: Log;
  /** Port of addresses that name none. */
  defaultPort(): number;
  /** Whether an endpoint is this node's own. */
  isSelf(endpoint: Endpoint): boolean;
  /** Whether this node knows nobody but itself. */
  isAlone(): boolean;
  /** Joins through one endpoint; gives the reason of a failure. */
  contact(endpoint: Endpoint, options: JoinOptions): Promise<string | undefined>;
}

/** Joins through names and addresses: resolves them, asks a few at once, and tries again with growing pauses. */
export class Joiner {
  readonly #options: JoinerOptions;

  constructor(options: JoinerOptions) {
    this.#options = options;
  }

  /**
   * How many of the endpoints behind `addresses` answered; this node's own are passed over. Throws {@linkcode SerfError}
   * with every reason where others are named and none answered.
   */
  async join(addresses: readonly string[], options: JoinOptions): Promise<number> {
    const reasons: string[] = [];
    const endpoints = await this.#resolve(addresses, { reasons, signal: options.signal });
    let joined = 0;
    let next = 0;
    const worker = async () => {
      while (next < endpoints.length) {
        options.signal?.throwIfAborted();
        const endpoint = endpoints[next++];
        const error = await this.#options.contact(endpoint, options);
        if (error === undefined) joined++;
        else reasons.push(`${endpoint}: ${error}`);
      }
    };
    await Promise.all(Array.from({ length: Math.min(PARALLEL, endpoints.length) }, worker));
    // It was this node itself that answered, under a name or address of the machine that it does not know as its own.
    if (joined > 0 && this.#options.isAlone()) joined = 0;
    if (joined === 0 && reasons.length > 0) {
      throw new SerfError(`Cannot join "${addresses.join(", ")}": ${reasons.join("; ")}`);
    }
    return joined;
  }

  /** Like {@linkcode join}, again and again until one answers. Names are resolved anew each time. */
  async retry(addresses: readonly string[], options: RetryOptions): Promise<number> {
    const { signal, firstPauseMs = FIRST_PAUSE_MS, longestPauseMs = LONGEST_PAUSE_MS } = options;
    const { log, random } = this.#options;
    for (let tries = 1, pauseMs = firstPauseMs;; tries++, pauseMs = Math.min(2 * pauseMs, longestPauseMs)) {
      try {
        return await this.join(addresses, options);
      } catch (error) {
        signal?.throwIfAborted();
        const waitMs = Math.round(pauseMs * (0.5 + 0.5 * random.float()));
        log.warn("cannot join yet, trying again", { tries, waitMs, reason: (error as Error).message });
        await this.#pause(waitMs, signal);
      }
    }
  }

  async #resolve(
    addresses: readonly string[],
    options: { reasons: string[]; signal?: AbortSignal },
  ): Promise<Endpoint[]> {
    const { resolver, isSelf, defaultPort } = this.#options;
    const { signal } = options;
    const answers = await Promise.allSettled(
      addresses.map((address) => resolveEndpoints(address, { defaultPort: defaultPort(), resolver, signal })),
    );
    signal?.throwIfAborted();
    const found = new Map<string, Endpoint>();
    for (const answer of answers) {
      if (answer.status === "rejected") {
        options.reasons.push(answer.reason instanceof Error ? answer.reason.message : String(answer.reason));
        continue;
      }
      for (const endpoint of answer.value) if (!isSelf(endpoint)) found.set(endpoint.toString(), endpoint);
    }
    return [...found.values()];
  }

  #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const cancel = this.#options.clock.after(ms, resolve);
    const abort = () => reject(signal?.reason);
    if (signal?.aborted) abort();
    else signal?.addEventListener("abort", abort, { once: true });
    return promise.finally(() => {
      cancel();
      signal?.removeEventListener("abort", abort);
    });
  }
}
