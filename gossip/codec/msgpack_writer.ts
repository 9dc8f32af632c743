import { NO_BYTES, utf8 } from "./text.ts";

const INITIAL_BYTES = 192;
/** Short messages share blocks of this size: memory of its own for each would cost more than writing it. */
const BLOCK_BYTES = 8_192;

let block = new Uint8Array(BLOCK_BYTES);
let blockUsed = 0;

/** Room for a short message, zeroed or not, apart from all others. */
function room(): Uint8Array {
  if (blockUsed + INITIAL_BYTES > BLOCK_BYTES) {
    block = new Uint8Array(BLOCK_BYTES);
    blockUsed = 0;
  }
  const out = block.subarray(blockUsed, blockUsed + INITIAL_BYTES);
  blockUsed += INITIAL_BYTES;
  return out;
}

/** What was asked for last needs no more than `length` bytes of its room. */
function giveBack(of: Uint8Array, length: number): void {
  if (of.buffer === block.buffer && of.byteOffset + INITIAL_BYTES === blockUsed) {
    blockUsed = of.byteOffset + length;
  }
}

/**
 * Writes msgpack in the dialect of go-msgpack's old specification: strings and byte strings alike as raw
 * (never str8, never bin), integers in their smallest unsigned form, floats as float64.
 */
export class MsgpackWriter {
  #bytes: Uint8Array;
  /** Made when first needed: few messages hold floats or large integers. */
  #lazyView: DataView | undefined;
  #length = 0;

  /** `expected` bytes, where they are many, are allocated at once. */
  constructor(expected = 0) {
    this.#bytes = expected > INITIAL_BYTES ? new Uint8Array(expected) : room();
  }

  /** Number of bytes written so far. */
  get length(): number {
    return this.#length;
  }

  /** What was written, which may share a block of memory with other messages. The writer can be used no more. */
  finish(): Uint8Array {
    const bytes = this.#bytes;
    const out = bytes.subarray(0, this.#length);
    if (bytes.length === INITIAL_BYTES) giveBack(bytes, this.#length);
    this.#bytes = NO_BYTES;
    this.#lazyView = undefined;
    this.#length = 0;
    return out;
  }

  get #view(): DataView {
    return this.#lazyView ??= new DataView(this.#bytes.buffer, this.#bytes.byteOffset);
  }

  /** One byte as it is. */
  byte(value: number): this {
    this.#reserve(1);
    this.#bytes[this.#length++] = value;
    return this;
  }

  /** Bytes as they are. */
  verbatim(bytes: Uint8Array): this {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  nil(): this {
    return this.byte(0xc0);
  }

  bool(value: boolean): this {
    return this.byte(value ? 0xc3 : 0xc2);
  }

  /** An integer in its smallest form; negative ones as signed. */
  int(value: number): this {
    this.#reserve(9);
    if (value >= 0) {
      if (value < 0x80) {
        this.#bytes[this.#length++] = value;
      } else if (value < 0x100) {
        this.#bytes[this.#length++] = 0xcc;
        this.#bytes[this.#length++] = value;
      } else if (value < 0x10000) {
        this.#bytes[this.#length++] = 0xcd;
        this.#bytes[this.#length++] = value >>> 8;
        this.#bytes[this.#length++] = value;
      } else if (value < 0x1_0000_0000) {
        this.#bytes[this.#length] = 0xce;
        this.#view.setUint32(this.#length + 1, value);
        this.#length += 5;
      } else {
        this.#bytes[this.#length] = 0xcf;
        this.#view.setUint32(this.#length + 1, Math.floor(value / 0x1_0000_0000));
        this.#view.setUint32(this.#length + 5, value % 0x1_0000_0000);
        this.#length += 9;
      }
    } else if (value >= -32) {
      this.#bytes[this.#length++] = value & 0xff;
    } else {
      this.#bytes[this.#length] = 0xd3;
      this.#view.setBigInt64(this.#length + 1, BigInt(value));
      this.#length += 9;
    }
    return this;
  }

  float(value: number): this {
    this.#reserve(9);
    this.#bytes[this.#length] = 0xcb;
    this.#view.setFloat64(this.#length + 1, value);
    this.#length += 9;
    return this;
  }

  /** A byte string; undefined is nil. */
  bytes(value: Uint8Array | undefined): this {
    if (value === undefined) return this.nil();
    return this.#rawHeader(value.length).verbatim(value);
  }

  string(value: string): this {
    const length = value.length;
    if (length < 32) {
      this.#reserve(length + 1);
      const start = this.#length;
      for (let i = 0; i < length; i++) {
        const code = value.charCodeAt(i);
        if (code > 0x7f) return this.bytes(utf8(value));
        this.#bytes[start + 1 + i] = code;
      }
      this.#bytes[start] = 0xa0 | length;
      this.#length += length + 1;
      return this;
    }
    return this.bytes(utf8(value));
  }

  array(length: number): this {
    return this.#containerHeader(length, 0x90, 0xdc);
  }

  map(entries: number): this {
    return this.#containerHeader(entries, 0x80, 0xde);
  }

  #rawHeader(length: number): this {
    if (length < 32) return this.byte(0xa0 | length);
    this.#reserve(5);
    if (length < 0x10000) {
      this.#bytes[this.#length] = 0xda;
      this.#view.setUint16(this.#length + 1, length);
      this.#length += 3;
    } else {
      this.#bytes[this.#length] = 0xdb;
      this.#view.setUint32(this.#length + 1, length);
      this.#length += 5;
    }
    return this;
  }

  #containerHeader(length: number, fix: number, wide: number): this {
    if (length < 16) return this.byte(fix | length);
    this.#reserve(5);
    if (length < 0x10000) {
      this.#bytes[this.#length] = wide;
      this.#view.setUint16(this.#length + 1, length);
      this.#length += 3;
    } else {
      this.#bytes[this.#length] = wide + 1;
      this.#view.setUint32(this.#length + 1, length);
      this.#length += 5;
    }
    return this;
  }

  #reserve(extra: number): void {
    const needed = this.#length + extra;
    if (needed <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, INITIAL_BYTES, this.#bytes.length * 2));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
    this.#lazyView = undefined;
  }
}
