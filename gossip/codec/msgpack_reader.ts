import { DecodeError } from "./error.ts";
import { LIMITS } from "./limits.ts";
import { fromUtf8, NO_BYTES, sameBytes } from "./text.ts";

/** Remembered short strings; a power of two. */
const STRING_SLOTS = 4_096;
/** Longest string that is remembered. */
const REMEMBERED_BYTES = 64;

/** Short strings seen lately. Several readers may have one in common. */
export type RememberedStrings = (string | undefined)[];

/** Room for short strings; bounded. */
export function rememberStrings(): RememberedStrings {
  return new Array(STRING_SLOTS).fill(undefined);
}

/**
 * Reads msgpack as any go-msgpack writes it: both dialects (raw, str and bin; signed, unsigned and float
 * integers; nil as the zero value). Field-directed: the caller asks for what it expects, and skips the rest.
 *
 * One reader belongs to one core and is aimed at buffer after buffer; given a place for it, it remembers short strings,
 * so that a name seen in a thousand packets is one string.
 */
export class MsgpackReader {
  /** Bytes being read. */
  bytes: Uint8Array = NO_BYTES;
  /** Next byte. */
  at = 0;
  /** One past the last byte. */
  end = 0;
  #view = new DataView(NO_BYTES.buffer);
  readonly #strings: RememberedStrings | undefined;

  /** `strings`: where to keep short strings for reuse; worth it for a reader that lives on. */
  constructor(options: { strings?: RememberedStrings } = {}) {
    this.#strings = options.strings;
  }

  /** Aims the reader at `bytes`, from `at` on and up to `end`. */
  reset(bytes: Uint8Array, at = 0, end = bytes.length): this {
    if (bytes !== this.bytes) {
      this.bytes = bytes;
      this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    }
    this.at = at;
    this.end = end;
    return this;
  }

  /** One raw byte. */
  byte(): number {
    this.#need(1);
    return this.bytes[this.at++];
  }

  /** Number of entries of the map that begins here; nil counts as an empty one. */
  map(): number {
    const tag = this.byte();
    if (tag >= 0x80 && tag <= 0x8f) return tag & 0x0f;
    if (tag === 0xde) return this.#count(this.#uint16(), 2);
    if (tag === 0xdf) return this.#count(this.#uint32(), 2);
    if (tag === 0xc0) return 0;
    throw new DecodeError("map", `byte 0x${tag.toString(16)} begins something else`);
  }

  /** Length of the array that begins here; undefined is nil. */
  array(limit: number): number | undefined {
    const tag = this.byte();
    let length: number;
    if (tag >= 0x90 && tag <= 0x9f) length = tag & 0x0f;
    else if (tag === 0xdc) length = this.#uint16();
    else if (tag === 0xdd) length = this.#uint32();
    else if (tag === 0xc0) return undefined;
    else throw new DecodeError("array", `byte 0x${tag.toString(16)} begins something else`);
    if (length > limit) throw new DecodeError("array", `${length} elements exceed the limit of ${limit}`);
    return this.#count(length, 1);
  }

  /** A string of at most `limit` bytes. */
  string(limit: number = LIMITS.nameBytes): string {
    const length = this.#rawLength();
    if (length > limit) throw new DecodeError("string", `${length} bytes exceed the limit of ${limit}`);
    const start = this.at;
    this.at += length;
    return length <= REMEMBERED_BYTES ? this.#short(start, length) : this.#text(start, length);
  }

  /**
   * A byte string that shares memory with the input; undefined is nil. An array of small integers, as some peers
   * write byte slices, is taken too.
   */
  view(limit: number): Uint8Array | undefined {
    const tag = this.#peek();
    if (tag === 0xc0) {
      this.at++;
      return undefined;
    }
    if ((tag >= 0x90 && tag <= 0x9f) || tag === 0xdc || tag === 0xdd) return this.#byteArray(limit);
    const length = this.#rawLength();
    if (length > limit) throw new DecodeError("bytes", `${length} bytes exceed the limit of ${limit}`);
    const start = this.at;
    this.at += length;
    return this.bytes.subarray(start, start + length);
  }

  /** The same, as `known` itself where it is equal: for what most messages have in common. */
  viewOr(known: Uint8Array, limit: number): Uint8Array | undefined {
    const start = this.at;
    const tag = this.#peek();
    if (tag >= 0xa0 && tag <= 0xbf && known.length === (tag & 0x1f) && known.length < this.end - start) {
      if (sameBytes(known, this.bytes, start + 1, start + 1 + known.length)) {
        this.at = start + 1 + known.length;
        return known;
      }
    }
    return this.view(limit);
  }

  /** A byte string of its own memory; undefined is nil. */
  copy(limit: number): Uint8Array | undefined {
    const tag = this.#peek();
    if (tag === 0xc0 || (tag >= 0x90 && tag <= 0x9f) || tag === 0xdc || tag === 0xdd) return this.view(limit);
    const length = this.#rawLength();
    if (length > limit) throw new DecodeError("bytes", `${length} bytes exceed the limit of ${limit}`);
    const start = this.at;
    this.at += length;
    return this.bytes.slice(start, start + length);
  }

  bool(): boolean {
    const tag = this.byte();
    if (tag === 0xc3) return true;
    if (tag === 0xc2 || tag === 0xc0) return false;
    throw new DecodeError("bool", `byte 0x${tag.toString(16)} begins something else`);
  }

  /** An integer of 0 to `max`, in whatever form. */
  uint(max: number): number {
    const value = this.number();
    if (!Number.isInteger(value) || value < 0 || value > max) {
      throw new DecodeError("integer", `${value} is not an integer of 0 to ${max}`);
    }
    return value;
  }

  /** A number, integer or float; nil is 0. 64-bit integers lose precision beyond 2^53. */
  number(): number {
    const tag = this.byte();
    if (tag < 0x80) return tag;
    if (tag >= 0xe0) return tag - 0x100;
    const width = NUMBER_WIDTH[tag];
    if (width === 0) {
      if (tag === 0xc0) return 0;
      throw new DecodeError("number", `byte 0x${tag.toString(16)} begins something else`);
    }
    this.#need(width);
    const at = this.at;
    this.at += width;
    switch (tag) {
      case 0xca:
        return this.#view.getFloat32(at);
      case 0xcb:
        return this.#view.getFloat64(at);
      case 0xcc:
        return this.bytes[at];
      case 0xcd:
        return this.#view.getUint16(at);
      case 0xce:
        return this.#view.getUint32(at);
      case 0xcf:
        return this.#view.getUint32(at) * 0x1_0000_0000 + this.#view.getUint32(at + 4);
      case 0xd0:
        return this.#view.getInt8(at);
      case 0xd1:
        return this.#view.getInt16(at);
      case 0xd2:
        return this.#view.getInt32(at);
      default:
        return this.#view.getInt32(at) * 0x1_0000_0000 + this.#view.getUint32(at + 4);
    }
  }

  /** Skips one value of any kind. */
  skip(): void {
    let values = 1;
    let work = 0;
    while (values > 0) {
      values--;
      if (++work > LIMITS.streamBytes) throw new DecodeError("value", "it is too large");
      const tag = this.byte();
      if (tag < 0x80 || tag >= 0xe0 || tag === 0xc0 || tag === 0xc2 || tag === 0xc3) continue;
      if (tag <= 0x8f) values += 2 * (tag & 0x0f);
      else if (tag <= 0x9f) values += tag & 0x0f;
      else if (tag <= 0xbf) this.#advance(tag & 0x1f);
      else if (tag >= 0xca && tag <= 0xd3) this.#advance(NUMBER_WIDTH[tag]);
      else if (tag === 0xde) values += 2 * this.#uint16();
      else if (tag === 0xdf) values += 2 * this.#count(this.#uint32(), 2);
      else if (tag === 0xdc) values += this.#uint16();
      else if (tag === 0xdd) values += this.#count(this.#uint32(), 1);
      else if (tag === 0xc4 || tag === 0xd9) this.#advance(this.byte());
      else if (tag === 0xc5 || tag === 0xda) this.#advance(this.#uint16());
      else if (tag === 0xc6 || tag === 0xdb) this.#advance(this.#uint32());
      else throw new DecodeError("value", `byte 0x${tag.toString(16)} begins no value`);
      if (values > this.end - this.at) {
        throw new DecodeError("value", "the input ends inside it", { incomplete: true });
      }
    }
  }

  /** Length of the raw, str or bin that begins here, its header passed over; nil is 0. */
  #rawLength(): number {
    const tag = this.byte();
    let length: number;
    if (tag >= 0xa0 && tag <= 0xbf) length = tag & 0x1f;
    else if (tag === 0xda || tag === 0xc5) length = this.#uint16();
    else if (tag === 0xd9 || tag === 0xc4) length = this.byte();
    else if (tag === 0xdb || tag === 0xc6) length = this.#uint32();
    else if (tag === 0xc0) return 0;
    else throw new DecodeError("bytes", `byte 0x${tag.toString(16)} begins something else`);
    this.#need(length);
    return length;
  }

  #short(start: number, length: number): string {
    const bytes = this.bytes;
    let hash = length;
    for (let i = start; i < start + length; i++) hash = (Math.imul(hash, 31) + bytes[i]) | 0;
    const known = FIELDS.get(hash);
    if (known !== undefined && sameAscii(known, bytes, start, length)) return known;
    if (this.#strings === undefined) return this.#text(start, length);
    const slot = (hash ^ (hash >>> 15)) & (STRING_SLOTS - 1);
    const remembered = this.#strings[slot];
    if (remembered !== undefined && sameAscii(remembered, bytes, start, length)) return remembered;
    const text = this.#text(start, length);
    // Only ASCII can be compared byte by byte.
    if (text.length === length) this.#strings[slot] = text;
    return text;
  }

  #text(start: number, length: number): string {
    const bytes = this.bytes.subarray(start, start + length);
    const text = fromUtf8(bytes);
    if (text === undefined) throw new DecodeError("string", "it is not UTF-8");
    return text;
  }

  #byteArray(limit: number): Uint8Array {
    const length = this.array(limit) ?? 0;
    const out = new Uint8Array(length);
    for (let i = 0; i < length; i++) out[i] = this.uint(255);
    return out;
  }

  #peek(): number {
    this.#need(1);
    return this.bytes[this.at];
  }

  #uint16(): number {
    this.#need(2);
    const value = this.#view.getUint16(this.at);
    this.at += 2;
    return value;
  }

  #uint32(): number {
    this.#need(4);
    const value = this.#view.getUint32(this.at);
    this.at += 4;
    return value;
  }

  /** A container cannot hold more elements than bytes are left. */
  #count(length: number, bytesEach: number): number {
    if (length * bytesEach > this.end - this.at) {
      throw new DecodeError("container", "the input ends inside it", { incomplete: true });
    }
    return length;
  }

  #advance(length: number): void {
    this.#need(length);
    this.at += length;
  }

  #need(length: number): void {
    if (length > this.end - this.at) {
      throw new DecodeError("value", "the input ends inside it", { incomplete: true });
    }
  }
}

/** Bytes that follow each number tag; 0 where the tag begins no number. */
const NUMBER_WIDTH = new Uint8Array(256);
for (
  const [tag, width] of [[0xca, 4], [0xcb, 8], [0xcc, 1], [0xcd, 2], [0xce, 4], [0xcf, 8], [0xd0, 1], [
    0xd1,
    2,
  ], [
    0xd2,
    4,
  ], [0xd3, 8]]
) {
  NUMBER_WIDTH[tag] = width;
}

/** Names of the fields of all messages by their hash: read without a new string each. */
const FIELDS = new Map<number, string>();
for (
  const name of [
    "Addr",
    "Adjustment",
    "Algo",
    "Buf",
    "CC",
    "DestAddr",
    "DestName",
    "Error",
    "EventLTime",
    "Events",
    "Expr",
    "Filters",
    "Flags",
    "From",
    "Height",
    "HypercoreDoors",
    "HypercoreFrom",
    "HypercoreKeys",
    "HypercoreRing",
    "ID",
    "IP",
    "Incarnation",
    "Join",
    "Key",
    "Keys",
    "LTime",
    "LeftMembers",
    "Message",
    "Meta",
    "Nack",
    "Name",
    "Node",
    "Nodes",
    "Payload",
    "Port",
    "PrimaryKey",
    "Prune",
    "QueryLTime",
    "RelayFactor",
    "Result",
    "Retired",
    "SeqNo",
    "SourceAddr",
    "SourceNode",
    "SourcePort",
    "State",
    "StatusLTimes",
    "Tag",
    "Target",
    "Timeout",
    "UserMsgLen",
    "UserStateLen",
    "Vec",
    "Version",
    "Vsn",
    "Zone",
  ]
) {
  let hash = name.length;
  for (let i = 0; i < name.length; i++) hash = (Math.imul(hash, 31) + name.charCodeAt(i)) | 0;
  FIELDS.set(hash, name);
}

function sameAscii(text: string, bytes: Uint8Array, start: number, length: number): boolean {
  if (text.length !== length) return false;
  for (let i = 0; i < length; i++) if (text.charCodeAt(i) !== bytes[start + i]) return false;
  return true;
}
