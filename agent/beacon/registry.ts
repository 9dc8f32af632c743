import { systemRandom } from "../../gossip/mod.ts";
import type { Log } from "../../runtime/log.ts";
import { type RegistryClient, registryClient } from "./registry_client.ts";
import { endpointText, type RegistryEndpoint } from "./registry_endpoint.ts";
import { RegistryLink, type RegistryState } from "./registry_link.ts";

/** What a {@linkcode Registry} is made of. */
export interface RegistryOptions {
  endpoint: RegistryEndpoint;
  /** What it is told of this node, as JSON, made anew for each registration. */
  registration: () => string;
  onState?: (isConnected: boolean) => void;
  log: Log;
}

/** Keeps this node known to an external registry of beacons. Whatever happens there, the node goes on. */
export class Registry implements AsyncDisposable {
  readonly #options: RegistryOptions;
  readonly #client: RegistryClient;
  readonly #link = new RegistryLink({ random: systemRandom() });
  readonly #closing = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #work: Promise<void> = Promise.resolve();
  #wasConnected: boolean | undefined;

  constructor(options: RegistryOptions) {
    this.#options = options;
    this.#client = registryClient(options.endpoint);
  }

  /** Begins to ask. */
  start(): void {
    this.#arm();
  }

  get state(): RegistryState {
    return this.#link.state;
  }

  /** The beacon says something else now. */
  changed(): void {
    this.#link.changed();
    this.#arm();
  }

  /** Resolves when nothing is under way any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error("the agent is stopping"));
    clearTimeout(this.#timer);
    await this.#work;
  }

  #arm(): void {
    clearTimeout(this.#timer);
    if (this.#closing.signal.aborted) return;
    const delayMs = Math.max(0, this.#link.nextMs - performance.now());
    this.#timer = setTimeout(() => {
      this.#work = this.#work.then(() => this.#round());
    }, delayMs);
  }

  async #round(): Promise<void> {
    const { signal } = this.#closing;
    try {
      let task = this.#link.due(performance.now());
      if (task === "health") {
        await this.#client.health(signal);
        task = this.#link.healthy(performance.now());
      }
      if (task === "register") {
        await this.#client.register(this.#options.registration(), signal);
        this.#link.registered(performance.now());
      }
    } catch (error) {
      if (signal.aborted) return;
      this.#link.failed(error instanceof Error ? error.message : String(error), performance.now());
    }
    this.#say();
    this.#arm();
  }

  /** Only what has changed. */
  #say(): void {
    const { state } = this.#link;
    const isConnected = state.kind === "connected";
    if (isConnected === this.#wasConnected) return;
    this.#wasConnected = isConnected;
    const { log, endpoint, onState } = this.#options;
    const registry = endpointText(endpoint);
    if (state.kind === "connected") log.info("the beacon registry knows this node", { registry });
    else log.warn("no beacon registry: going on without it", { registry, reason: state.reason });
    onState?.(isConnected);
  }
}
