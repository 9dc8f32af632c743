import { setTimeout as delay } from "node:timers/promises";
import type { ContainerdClient } from "../containerd/client.ts";
import { probe } from "../containerd/ready.ts";
import type { GarbageReport } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import type { Log } from "../log.ts";

/** Pauses between two looks at a containerd that is away: the first, doubling to the last, in milliseconds. */
const LOOK_MS = { first: 50, last: 1_000 };
/** Collections that containerd does not live to see the end of; what is left then waits for the next regular one. */
const MAX_COLLECTIONS = 5;

/** What {@linkcode Leftovers} is made of. */
export interface LeftoversOptions {
  client: ContainerdClient;
  collect(): Promise<GarbageReport>;
  log: Log;
}

/** Sees to what could not be undone while containerd was away: it is collected as soon as containerd answers again. */
export class Leftovers implements AsyncDisposable {
  readonly #options: LeftoversOptions;
  readonly #closing = new AbortController();
  #isDue = false;
  #collecting: Promise<void> | undefined;

  constructor(options: LeftoversOptions) {
    this.#options = options;
  }

  /** Something is left over; whoever left it is through with it. Resolves when it has been seen to. Never rejects. */
  add(): Promise<void> {
    if (this.#closing.signal.aborted) return Promise.resolve();
    this.#isDue = true;
    return this.#collecting ??= this.#collectAll().finally(() => this.#collecting = undefined);
  }

  async #collectAll(): Promise<void> {
    const { signal } = this.#closing;
    let left = MAX_COLLECTIONS;
    try {
      for (let pauseMs = LOOK_MS.first; this.#isDue; pauseMs = Math.min(pauseMs * 2, LOOK_MS.last)) {
        await delay(pauseMs, undefined, { signal });
        if (await probe(this.#options.client, signal) === undefined) continue;
        this.#isDue = false;
        if (await this.#isAwayAgain() && --left > 0) this.#isDue = true;
      }
    } catch (error) {
      if (!signal.aborted) {
        this.#options.log.error("cannot collect what is left over", { error: String(error) });
      }
    }
  }

  /** Collects; whether containerd went away meanwhile. */
  async #isAwayAgain(): Promise<boolean> {
    try {
      const report = await this.#options.collect();
      this.#options.log.info("collected what was left over", { ...report });
      return false;
    } catch (error) {
      // Every failure has been logged.
      return error instanceof RuntimeError && error.code === "unavailable";
    }
  }

  /** Looks for it no longer; resolves when a collection that has begun is over. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort();
    await this.#collecting;
  }
}
