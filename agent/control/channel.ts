import { RuntimeError } from "../../runtime/errors.ts";

/** Items that wait for one slow reader before it is cut off. */
export const MAX_CHANNEL_ITEMS = 8_192;

/** Items of one producer for one reader, bounded: a reader that does not keep up gets an error, nobody waits for it. */
export class Channel<T> {
  readonly #items: T[] = [];
  readonly #what: string;
  #end: { error?: unknown } | undefined;
  #wake = () => {};

  /** `what` names the items in the error of a reader that fell behind. */
  constructor(what: string) {
    this.#what = what;
  }

  /** False when this is the item that cuts the reader off. */
  push(item: T): boolean {
    if (this.#end !== undefined) return true;
    if (this.#items.length >= MAX_CHANNEL_ITEMS) {
      this.#items.length = 0;
      this.end(new RuntimeError("exhausted", `Cannot follow ${this.#what}: the reader fell too far behind`));
      return false;
    }
    this.#items.push(item);
    this.#wake();
    return true;
  }

  /** No more will come; what is queued is still read. */
  end(error?: unknown): void {
    this.#end ??= { error };
    this.#wake();
  }

  /** Until the end, or until the signal aborts. */
  async *read(signal: AbortSignal): AsyncGenerator<T> {
    const onAbort = () => this.#wake();
    signal.addEventListener("abort", onAbort);
    try {
      while (!signal.aborted) {
        const item = this.#items.shift();
        if (item !== undefined) yield item;
        else if (this.#end === undefined) await new Promise<void>((resolve) => this.#wake = resolve);
        else if (this.#end.error !== undefined) throw this.#end.error;
        else return;
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.end();
    }
  }
}
