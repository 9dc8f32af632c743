/**
 * When the first of many things is due, looked up again only after something about them has changed: the cores ask after
 * every input.
 */
export class Earliest {
  readonly #find: () => number;
  #atMs: number | undefined;

  /** `find` goes through all of them. */
  constructor(find: () => number) {
    this.#find = find;
  }

  /** Infinity where nothing will be due. */
  get atMs(): number {
    return this.#atMs ??= this.#find();
  }

  /** Something has changed. */
  changed(): void {
    this.#atMs = undefined;
  }
}
