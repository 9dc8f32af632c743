/**
 * Connections to the hop port whose other end has not yet proved that it is a member. When there are too many, the oldest
 * of the address that has the most gives way: a stranger that opens many takes places of its own, not of members.
 */
export class Openings {
  /** By address, the oldest first. */
  readonly #byAddress = new Map<string, Set<() => void>>();
  #size = 0;

  constructor(private readonly max: number) {}

  /** How many there are. */
  get size(): number {
    return this.#size;
  }

  /** Takes one in. Returns what tells that it has proved itself or is gone; `close` is called when it gives way instead. */
  add(address: string, close: () => void): () => void {
    if (this.#size >= this.max) this.#giveWay();
    const own = () => close();
    const ofAddress = this.#byAddress.get(address) ?? new Set();
    this.#byAddress.set(address, ofAddress.add(own));
    this.#size++;
    return () => this.#remove(address, own);
  }

  #giveWay(): void {
    let most: [address: string, closes: Set<() => void>] | undefined;
    for (const entry of this.#byAddress) {
      if (most === undefined || entry[1].size > most[1].size) most = entry;
    }
    if (most === undefined) return;
    const [oldest] = most[1];
    this.#remove(most[0], oldest);
    oldest();
  }

  #remove(address: string, own: () => void): void {
    const ofAddress = this.#byAddress.get(address);
    if (!ofAddress?.delete(own)) return;
    this.#size--;
    if (ofAddress.size === 0) this.#byAddress.delete(address);
  }
}
