/** Rough size of an object or of a place in a list, in bytes. */
const OBJECT_BYTES = 64;

/**
 * Counts the bytes of typed arrays that are made while it watches: what a decoder allocates, also where it throws and the
 * result is lost. Replaces the global constructor until it is disposed of.
 */
export class AllocationMeter implements Disposable {
  /** Bytes since {@linkcode reset}. */
  bytes = 0;
  readonly #original = globalThis.Uint8Array;

  constructor() {
    const count = (bytes: number) => this.bytes += bytes;
    globalThis.Uint8Array = new Proxy(this.#original, {
      construct(target, args, newTarget) {
        if (typeof args[0] === "number") count(args[0]);
        return Reflect.construct(target, args, newTarget === globalThis.Uint8Array ? target : newTarget);
      },
    });
  }

  reset(): void {
    this.bytes = 0;
  }

  [Symbol.dispose](): void {
    globalThis.Uint8Array = this.#original;
  }
}

/** Rough size in bytes of a decoded value; bytes that it shares with `input` are not its own. */
export function weigh(value: unknown, input: Uint8Array): number {
  if (typeof value === "string") return 2 * value.length + OBJECT_BYTES;
  if (value === null || typeof value !== "object") return 8;
  if (ArrayBuffer.isView(value)) return value.buffer === input.buffer ? OBJECT_BYTES : value.byteLength;
  const parts = value instanceof Map ? [...value].flat() : Object.values(value);
  let bytes = OBJECT_BYTES;
  for (const part of parts) bytes += weigh(part, input);
  return bytes;
}
