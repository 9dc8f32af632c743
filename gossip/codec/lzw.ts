import { DecodeError } from "./error.ts";

const CLEAR = 256;
const END = 257;
const MIN_WIDTH = 9;
const MAX_WIDTH = 12;
const MAX_CODE = (1 << MAX_WIDTH) - 1;
/** Slots of the encoder's hash table; four times the codes, so probes stay short. */
const HASH_SLOTS = 1 << 14;

/** LZW as GIF packs it: least significant bit first, literal width 8, codes of 9 to 12 bits (Go's `compress/lzw`). */
export class LzwEncoder {
  readonly #keys = new Int32Array(HASH_SLOTS);
  readonly #codes = new Uint16Array(HASH_SLOTS);
  #out = new Uint8Array(1024);
  #length = 0;
  #bits = 0;
  #bitCount = 0;
  #width = MIN_WIDTH;
  #high = END;

  encode(input: Uint8Array): Uint8Array {
    this.#out = new Uint8Array(Math.max(64, input.length * 2 + 16));
    this.#length = 0;
    this.#bits = this.#bitCount = 0;
    this.#reset();
    this.#emit(CLEAR);
    if (input.length > 0) {
      let prefix = input[0];
      for (let i = 1; i < input.length; i++) {
        const key = (prefix << 8) | input[i];
        let slot = this.#slot(key);
        while (this.#keys[slot] !== -1 && this.#keys[slot] !== key) slot = (slot + 1) & (HASH_SLOTS - 1);
        if (this.#keys[slot] === key) {
          prefix = this.#codes[slot];
          continue;
        }
        this.#emit(prefix);
        if (this.#advance()) {
          this.#keys[slot] = key;
          this.#codes[slot] = this.#high;
        }
        prefix = input[i];
      }
      this.#emit(prefix);
      this.#advance();
    }
    this.#emit(END);
    if (this.#bitCount > 0) this.#out[this.#length++] = this.#bits & 0xff;
    return this.#out.slice(0, this.#length);
  }

  #slot(key: number): number {
    return (Math.imul(key, 0x9e3779b1) >>> 18) & (HASH_SLOTS - 1);
  }

  #reset(): void {
    this.#keys.fill(-1);
    this.#width = MIN_WIDTH;
    this.#high = END;
  }

  /** The step after each data code; false where the table was cleared, so no entry may be added. */
  #advance(): boolean {
    this.#high++;
    if (this.#high === 1 << this.#width) this.#width++;
    if (this.#high === MAX_CODE) {
      this.#emit(CLEAR);
      this.#reset();
      return false;
    }
    return true;
  }

  #emit(code: number): void {
    this.#bits |= code << this.#bitCount;
    this.#bitCount += this.#width;
    while (this.#bitCount >= 8) {
      this.#out[this.#length++] = this.#bits & 0xff;
      this.#bits >>>= 8;
      this.#bitCount -= 8;
    }
  }
}

/** The inverse of {@linkcode LzwEncoder}. */
export class LzwDecoder {
  readonly #prefix = new Uint16Array(MAX_CODE + 1);
  readonly #suffix = new Uint8Array(MAX_CODE + 1);
  readonly #stack = new Uint8Array(MAX_CODE + 1);

  /** Throws {@linkcode DecodeError} on bad codes, a missing end code and more than `limit` bytes of output. */
  decode(input: Uint8Array, limit: number): Uint8Array {
    let out = new Uint8Array(Math.min(limit, Math.max(64, input.length * 4)));
    let length = 0;
    let bits = 0;
    let bitCount = 0;
    let width = MIN_WIDTH;
    let high = END;
    let last = -1;
    let first = 0;
    let at = 0;
    const prefix = this.#prefix;
    const suffix = this.#suffix;
    const stack = this.#stack;
    for (;;) {
      while (bitCount < width) {
        if (at >= input.length) throw new DecodeError("LZW data", "the end code is missing");
        bits |= input[at++] << bitCount;
        bitCount += 8;
      }
      const code = bits & ((1 << width) - 1);
      bits >>>= width;
      bitCount -= width;
      if (code === CLEAR) {
        width = MIN_WIDTH;
        high = END;
        last = -1;
        continue;
      }
      if (code === END) return out.slice(0, length);
      let depth = 0;
      let current = code;
      if (code > high || (code >= CLEAR && last === -1)) {
        throw new DecodeError("LZW data", `code ${code} is not defined`);
      }
      if (code === high && last !== -1 && code >= CLEAR) {
        // The entry about to be defined: the previous string and its first byte.
        stack[depth++] = first;
        current = last;
      }
      while (current >= CLEAR) {
        stack[depth++] = suffix[current];
        current = prefix[current];
      }
      stack[depth++] = current;
      first = current;
      if (length + depth > limit) throw new DecodeError("LZW data", `the output exceeds ${limit} bytes`);
      if (length + depth > out.length) {
        const grown = new Uint8Array(Math.min(limit, Math.max(length + depth, out.length * 2)));
        grown.set(out.subarray(0, length));
        out = grown;
      }
      while (depth > 0) out[length++] = stack[--depth];
      if (last !== -1 && high <= MAX_CODE) {
        suffix[high] = first;
        prefix[high] = last;
      }
      last = code;
      if (high <= MAX_CODE) high++;
      if (high === 1 << width && width < MAX_WIDTH) width++;
    }
  }
}
