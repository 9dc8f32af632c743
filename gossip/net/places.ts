/** Counts connections, all and by address, so that one stranger cannot take every place. */
export class Places {
  readonly #byAddress = new Map<string, number>();
  #size = 0;

  constructor(readonly max: { all: number; perAddress: number }) {}

  /** How many there are. */
  get size(): number {
    return this.#size;
  }

  /** A place until it is disposed of; undefined where there is none. */
  admit(address: string): Disposable | undefined {
    const count = this.#byAddress.get(address) ?? 0;
    if (this.#size >= this.max.all || count >= this.max.perAddress) return undefined;
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
