/** Counts connections of which nothing is known yet, all and by address, so that a stranger cannot take every place. */
export class Pending {
  readonly #byAddress = new Map<string, number>();
  #size = 0;

  constructor(readonly max: { pending: number; pendingPerAddress: number }) {}

  /** How many there are. */
  get size(): number {
    return this.#size;
  }

  /** A place until it is disposed of; undefined where there is none. */
  admit(address: string): Disposable | undefined {
    const count = this.#byAddress.get(address) ?? 0;
    if (this.#size >= this.max.pending || count >= this.max.pendingPerAddress) return undefined;
    this.#size++;
    this.#byAddress.set(address, count + 1);
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        this.#size--;
        const left = this.#byAddress.get(address)! - 1;
        if (left === 0) this.#byAddress.delete(address);
        else this.#byAddress.set(address, left);
      },
    };
  }
}
