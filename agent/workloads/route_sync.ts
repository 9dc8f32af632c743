import type { Log } from "../../runtime/log.ts";
import type { PortFailure, Proxy, Route } from "../proxy/mod.ts";

/** What {@linkcode RouteSync} is given. */
export interface RouteSyncOptions {
  proxy: Pick<Proxy, "apply">;
  /** The table as it should be now. */
  routes: () => Route[];
  log: Log;
}

/** Brings the proxy's table up to date, one `apply` at a time; callers that come meanwhile share the next one. */
export class RouteSync {
  readonly #options: RouteSyncOptions;
  #tail: Promise<unknown> = Promise.resolve();
  #next?: Promise<PortFailure[]>;

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

  async #apply(): Promise<PortFailure[]> {
    this.#next = undefined;
    const failures = await this.#options.proxy.apply(this.#options.routes());
    for (const { hostPort, reason } of failures) {
      this.#options.log.warn("cannot open a host port", { hostPort, reason });
    }
    return failures;
  }
}
