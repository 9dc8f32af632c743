import type { Log } from "../../runtime/log.ts";
import type { PortFailure, Proxy, Route } from "../proxy/mod.ts";

/** Pause before a port that could not be opened is tried again; doubles each time. Milliseconds. */
export const PORT_RETRY_FIRST_MS = 1_000;
/** Longest such pause, milliseconds. */
export const PORT_RETRY_MAX_MS = 60_000;

/** What {@linkcode RouteSync} is given. */
export interface RouteSyncOptions {
  proxy: Pick<Proxy, "apply">;
  /** The table as it should be now. */
  routes: () => Route[];
  /** Calls back once; returns what cancels it. */
  setTimer: (callback: () => void, delayMs: number) => () => void;
  log: Log;
}

/**
 * Brings the proxy's table up to date, one `apply` at a time; callers that come meanwhile share the next one. What
 * could not be brought into force is tried again by itself, with growing pauses, until dispose.
 */
export class RouteSync implements AsyncDisposable {
  readonly #options: RouteSyncOptions;
  #tail: Promise<unknown> = Promise.resolve();
  #next?: Promise<PortFailure[]>;
  #retries = 0;
  #cancelRetry?: () => void;
  #isDisposed = false;

  constructor(options: RouteSyncOptions) {
    this.#options = options;
  }

  /** Resolves when a table built after this call is in force, with the ports that could not be opened. */
  sync(): Promise<PortFailure[]> {
    if (this.#next !== undefined) return this.#next;
    const next = this.#tail.then(() => this.#apply());
    this.#tail = next.catch(() => {});
    return this.#next = next;
  }

  /** Tries nothing again; resolves when the `apply` that is under way has ended. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    this.#cancelRetry?.();
    await this.#tail;
  }

  async #apply(): Promise<PortFailure[]> {
    this.#next = undefined;
    this.#cancelRetry?.();
    this.#cancelRetry = undefined;
    let isWhole = false;
    try {
      const failures = await this.#options.proxy.apply(this.#options.routes());
      for (const { hostPort, reason } of failures) {
        this.#options.log.warn("cannot open a host port", { hostPort, reason });
      }
      isWhole = failures.length === 0;
      return failures;
    } finally {
      if (isWhole) this.#retries = 0;
      else if (!this.#isDisposed) this.#retryLater();
    }
  }

  #retryLater(): void {
    const { setTimer, log } = this.#options;
    const delayMs = Math.min(PORT_RETRY_FIRST_MS * 2 ** this.#retries, PORT_RETRY_MAX_MS);
    this.#cancelRetry = setTimer(() => {
      if (delayMs < PORT_RETRY_MAX_MS) this.#retries++;
      this.sync().catch((error) => {
        log.error("cannot update the routes", {
          error: error instanceof Error ? error.message : String(error),
        });
      });
    }, delayMs);
  }
}
