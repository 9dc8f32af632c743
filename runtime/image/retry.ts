import { RuntimeError } from "../errors.ts";

/** Attempts at a manifest or a token before the last error counts: who waits should soon hear that a host is down. */
export const MAX_ATTEMPTS = 3;
/** Attempts at a blob without a byte in between; about a minute of patience, since much may be there already. */
export const MAX_BLOB_ATTEMPTS = 10;
const FIRST_DELAY_MS = 250;
const MAX_DELAY_MS = 15_000;
/** A registry that asks for more patience than this is told no. */
const MAX_RETRY_AFTER_MS = 60_000;

/** An error that another attempt may cure; `afterMs` is what the other side asked for, `isAnswer` that it spoke at all. */
export class TransientError extends Error {
  override readonly name = "TransientError";
  constructor(message: string, options: ErrorOptions & { afterMs?: number; isAnswer?: boolean } = {}) {
    super(message, options);
    this.afterMs = options.afterMs;
    this.isAnswer = options.isAnswer ?? false;
  }
  readonly afterMs?: number;
  readonly isAnswer: boolean;
}

/** Waits, or throws the signal's reason. */
export type Wait = (ms: number, signal?: AbortSignal) => Promise<void>;

/** {@linkcode Wait} by the clock. */
export const waitMs: Wait = (ms, signal) =>
  new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", onAbort, { once: true });
  });

/** How long to wait after the failure number `failures` (from 1): doubling, with up to a quarter taken off at random. */
export function retryDelayMs(failures: number, random: number, afterMs = 0): number {
  const backoff = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** (failures - 1)) * (1 - random / 4);
  return Math.max(backoff, Math.min(afterMs, MAX_RETRY_AFTER_MS));
}

/** `Retry-After` in milliseconds (RFC 9110 §10.2.3): seconds or a date. */
export function parseRetryAfter(value: string | null, nowMs: number): number | undefined {
  if (value === null) return undefined;
  if (/^\d{1,9}$/.test(value.trim())) return Number(value.trim()) * 1000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs);
}

/** Runs `attempt` until it gives something else than a {@linkcode TransientError}, which ends as `unavailable`. */
export async function withRetries<T>(
  attempt: () => Promise<T>,
  options: {
    what: string;
    wait: Wait;
    signal?: AbortSignal;
    /** Whether there is no use in trying this again. */
    isFinal?: (error: TransientError) => boolean;
  },
): Promise<T> {
  for (let failures = 1;; failures++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof TransientError)) throw error;
      if (failures >= MAX_ATTEMPTS || options.isFinal?.(error)) {
        throw new RuntimeError("unavailable", `Cannot ${options.what}: ${error.message}`, { cause: error });
      }
      await options.wait(retryDelayMs(failures, Math.random(), error.afterMs), options.signal);
    }
  }
}
