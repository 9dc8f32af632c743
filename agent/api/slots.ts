import { RuntimeError } from "../../runtime/errors.ts";

/** So many at once; one more is refused, it does not wait. */
export class Slots {
  #used = 0;

  /** @param what names the thing in the error, e.g. "exec sessions" */
  constructor(readonly what: string, readonly max: number) {}

  get used(): number {
    return this.#used;
  }

  /** Takes one until disposed. Throws `exhausted` when all are taken. */
  take(): Disposable {
    if (this.#used >= this.max) {
      throw new RuntimeError(
        "exhausted",
        `Cannot open another of ${this.what}: ${this.max} are open already`,
      );
    }
    this.#used++;
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (isHeld) this.#used--;
        isHeld = false;
      },
    };
  }
}
