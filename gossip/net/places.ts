import { networkOf } from "./network_of.ts";

/** How many there may be. */
export interface PlaceLimits {
  all: number;
  /** From one IP address. */
  perAddress: number;
  /** From one IPv6 /64: a stranger has all of its addresses, but so may the nodes of one LAN have theirs there. */
  perNetwork: number;
}

/** Counts connections, all, by address and by network, so that one stranger cannot take every place. */
export class Places {
  readonly #counts = new Map<string, number>();
  #size = 0;

  constructor(readonly max: PlaceLimits) {}

  /** How many there are. */
  get size(): number {
    return this.#size;
  }

  /** A place for one from an IP address until it is disposed of; undefined where there is none. */
  admit(from: string): Disposable | undefined {
    const { address, network } = networkOf(from);
    const { all, perAddress, perNetwork } = this.max;
    if (this.#size >= all || this.#count(address) >= perAddress) return undefined;
    const keys = network === address ? [address] : [address, network];
    if (keys.length > 1 && this.#count(network) >= perNetwork) return undefined;
    this.#change(keys, 1);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (isHeld) this.#change(keys, -1);
        isHeld = false;
      },
    };
  }

  #count(key: string): number {
    return this.#counts.get(key) ?? 0;
  }

  #change(keys: readonly string[], by: number): void {
    this.#size += by;
    for (const key of keys) {
      const count = this.#count(key) + by;
      if (count === 0) this.#counts.delete(key);
      else this.#counts.set(key, count);
    }
  }
}
