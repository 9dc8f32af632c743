import { networkOf } from "./network_of.ts";

/** What of the connections of a network counts against it: of a LAN's nodes each has some, of a stranger all are its own. */
const NETWORK_SHARE = 1 / 2;

/** By address, the oldest first. */
type OfNetwork = Map<string, Set<() => void>>;

/**
 * Connections to a port, of the hop or of the API, whose other end has not yet proved who it is. When there are too many, the
 * oldest of the address that has the most gives way, or of a network that has more than twice as many: a stranger that opens
 * many takes places of its own, not of others.
 */
export class Openings {
  readonly #byNetwork = new Map<string, OfNetwork>();
  #size = 0;

  constructor(private readonly max: number) {}

  /** How many there are. */
  get size(): number {
    return this.#size;
  }

  /** How many networks they come from. */
  get networks(): number {
    return this.#byNetwork.size;
  }

  /** Takes one in. Returns what tells that it has proved itself or is gone; `close` is called when it gives way instead. */
  add(address: string, close: () => void): () => void {
    if (this.#size >= this.max) this.giveWay();
    const own = () => close();
    const network = networkOf(address);
    const ofNetwork = this.#byNetwork.get(network) ?? new Map();
    this.#byNetwork.set(network, ofNetwork);
    const ofAddress = ofNetwork.get(address) ?? new Set();
    ofNetwork.set(address, ofAddress.add(own));
    this.#size++;
    return () => this.#remove(address, own);
  }

  /** Has one give way; tells whether there was one. */
  giveWay(): boolean {
    let most: { address: string; closes: Set<() => void>; weight: number } | undefined;
    for (const ofNetwork of this.#byNetwork.values()) {
      const { size, address, closes } = busiest(ofNetwork);
      const weight = Math.max(closes.size, size * NETWORK_SHARE);
      if (most === undefined || weight > most.weight) most = { address, closes, weight };
    }
    if (most === undefined) return false;
    const [oldest] = most.closes;
    this.#remove(most.address, oldest);
    oldest();
    return true;
  }

  #remove(address: string, own: () => void): void {
    const network = networkOf(address);
    const ofNetwork = this.#byNetwork.get(network);
    const ofAddress = ofNetwork?.get(address);
    if (!ofNetwork || !ofAddress?.delete(own)) return;
    this.#size--;
    if (ofAddress.size === 0) ofNetwork.delete(address);
    if (ofNetwork.size === 0) this.#byNetwork.delete(network);
  }
}

/** How many a network has, and the address in it that has the most. */
function busiest(ofNetwork: OfNetwork): { size: number; address: string; closes: Set<() => void> } {
  let size = 0;
  let [most] = ofNetwork;
  for (const entry of ofNetwork) {
    size += entry[1].size;
    if (entry[1].size > most[1].size) most = entry;
  }
  return { size, address: most[0], closes: most[1] };
}
