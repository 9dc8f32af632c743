import type { Endpoint } from "../endpoint.ts";
import type { Random } from "../random.ts";

/** Addresses where the cluster once was: of forgotten members, and those this node was told to join. Bounded. */
export class RejoinBook {
  readonly #endpoints = new Map<string, Endpoint>();
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#endpoints.size;
  }

  /** Remembers an address as the newest; the oldest goes where there is no room. */
  remember(endpoint: Endpoint): void {
    const key = endpoint.toString();
    this.#endpoints.delete(key);
    this.#endpoints.set(key, endpoint);
    if (this.#endpoints.size > this.#limit) {
      const [oldest] = this.#endpoints.keys();
      this.#endpoints.delete(oldest);
    }
  }

  /** One of the addresses that `isWanted` takes, at random. */
  pick(random: Random, isWanted: (endpoint: Endpoint) => boolean): Endpoint | undefined {
    const wanted = [...this.#endpoints.values()].filter(isWanted);
    return wanted.length === 0 ? undefined : wanted[random.int(wanted.length)];
  }
}
