import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from "node:crypto";
import { Gcm192 } from "./gcm192.ts";
import { concatBytes, equalBytes } from "./text.ts";

const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const BLOCK_BYTES = 16;
/** Bytes that encryption version 1 adds. */
export const ENCRYPTION_OVERHEAD = 1 + NONCE_BYTES + TAG_BYTES;
/** Keys one ring holds at most. */
export const MAX_KEYS = 32;
/** Removed keys that are remembered; the oldest go first. */
export const MAX_RETIRED = 8;

interface Entry {
  raw: Uint8Array;
  secret: KeyObject;
  cipher: "aes-128-gcm" | "aes-256-gcm" | Gcm192;
}

/** What a ring made of sealed bytes. */
export interface Opened {
  plaintext: Uint8Array;
  /** The key that fitted. */
  key: Uint8Array;
  /** Whether that key was removed from the ring: only a node that missed a rotation still uses it. */
  retired?: boolean;
}

/** A change that a ring refuses; the reason reads as Serf's. */
export class KeyringError extends Error {
  override readonly name = "KeyringError";
}

/**
 * The cluster's keys, the primary first: seals with the primary, opens with any. AES-GCM of memberlist, encryption
 * versions 0 (padded, read only) and 1.
 */
export class Keyring {
  #entries: Entry[] = [];
  /** Removed keys, the latest first. They open only what is asked for as such. */
  #retired: Entry[] = [];

  /** Throws {@linkcode KeyringError} where a key is not of 16, 24 or 32 bytes, or there is none. */
  constructor(keys: readonly Uint8Array[]) {
    if (keys.length === 0) throw new KeyringError("Cannot make a key ring: it has no key");
    for (const key of keys) this.install(key);
  }

  /** Copies of the keys, the primary first. */
  keys(): Uint8Array[] {
    return this.#entries.map((entry) => entry.raw.slice());
  }

  /** Copies of the removed keys that are remembered, the latest first. */
  retired(): Uint8Array[] {
    return this.#retired.map((entry) => entry.raw.slice());
  }

  /** Remembers keys as removed that an earlier life or another member removed, those in the ring excepted. */
  retire(keys: readonly Uint8Array[]): void {
    const known = (key: Uint8Array) => this.#retired.some((entry) => equalBytes(entry.raw, key));
    if (keys.every(known)) return;
    const [own, others] = [this.#retired, keys.filter((key) => !known(key)).map(toEntry)];
    // Behind our own, which are the latest as far as we know.
    this.#retired = [];
    this.#retire([...own, ...others]);
  }

  #retire(entries: readonly Entry[]): void {
    const gone = [...entries, ...this.#retired].filter((entry) => !this.has(entry.raw));
    this.#retired = gone.filter((entry, i) => gone.findIndex(({ raw }) => equalBytes(raw, entry.raw)) === i)
      .slice(0, MAX_RETIRED);
  }

  /** The key that seals. */
  get primary(): Uint8Array {
    return this.#entries[0].raw;
  }

  has(key: Uint8Array): boolean {
    return this.#entries.some((entry) => equalBytes(entry.raw, key));
  }

  /** Adds a key; one that is there already changes nothing. */
  install(key: Uint8Array): void {
    const entry = toEntry(key);
    if (this.has(key)) return;
    if (this.#entries.length >= MAX_KEYS) {
      throw new KeyringError(`the key ring holds ${MAX_KEYS} keys already`);
    }
    this.#entries.push(entry);
    this.#retire([]);
  }

  /** Makes an installed key the primary. */
  use(key: Uint8Array): void {
    const index = this.#entries.findIndex((entry) => equalBytes(entry.raw, key));
    if (index < 0) throw new KeyringError("requested key is not in the keyring");
    this.#entries.unshift(...this.#entries.splice(index, 1));
  }

  /** Removes a key that is not the primary; one that is not there changes nothing. */
  remove(key: Uint8Array): void {
    if (equalBytes(key, this.primary)) throw new KeyringError("removing the primary key is not allowed");
    this.#hold(this.#entries.filter((entry) => !equalBytes(entry.raw, key)));
  }

  /** Holds exactly `keys` from now on, the primary first. Nothing changes where one of them is no key. */
  replace(keys: readonly Uint8Array[]): void {
    this.#hold(new Keyring(keys).#entries);
  }

  #hold(entries: Entry[]): void {
    const before = this.#entries;
    this.#entries = entries;
    this.#retire(before);
  }

  /** Seals with the primary, or with another installed key. The nonce is 12 fresh random bytes. */
  seal(
    plaintext: Uint8Array,
    options: { nonce: Uint8Array; aad?: Uint8Array; key?: Uint8Array },
  ): Uint8Array {
    const { key } = options;
    const isWanted = (candidate: Entry) => key !== undefined && equalBytes(candidate.raw, key);
    const entry = this.#entries.find(isWanted) ?? this.#retired.find(isWanted) ?? this.#entries[0];
    if (entry.cipher instanceof Gcm192) {
      const { body, tag } = entry.cipher.seal(plaintext, options);
      return concatBytes([VERSION_1, options.nonce, body, tag]);
    }
    const cipher = createCipheriv(entry.cipher as "aes-256-gcm", entry.secret, options.nonce);
    if (options.aad) cipher.setAAD(options.aad);
    const body = cipher.update(plaintext);
    const last = cipher.final();
    return concatBytes([VERSION_1, options.nonce, body, last, cipher.getAuthTag()]);
  }

  /**
   * Opens what any key of the ring sealed; undefined where none fits or the bytes are too short. With `retired`,
   * removed keys are tried as well, and the result says so.
   */
  open(sealed: Uint8Array, options: { aad?: Uint8Array; retired?: boolean } = {}): Opened | undefined {
    const version = sealed[0];
    if (version > 1) return undefined;
    if (sealed.length < (version === 1 ? ENCRYPTION_OVERHEAD : ENCRYPTION_OVERHEAD + BLOCK_BYTES)) {
      return undefined;
    }
    const opened = this.#openAny(this.#entries, sealed, options.aad);
    if (opened !== undefined || !options.retired) return opened;
    const late = this.#openAny(this.#retired, sealed, options.aad);
    return late && { ...late, retired: true };
  }

  #openAny(entries: readonly Entry[], sealed: Uint8Array, aad: Uint8Array | undefined): Opened | undefined {
    for (const entry of entries) {
      const plaintext = this.#openWith(entry, sealed, aad);
      if (plaintext === undefined) continue;
      const message = sealed[0] === 1 ? plaintext : unpad(plaintext);
      return message && { plaintext: message, key: entry.raw };
    }
    return undefined;
  }

  #openWith(entry: Entry, sealed: Uint8Array, aad: Uint8Array | undefined): Uint8Array | undefined {
    const nonce = sealed.subarray(1, 1 + NONCE_BYTES);
    if (entry.cipher instanceof Gcm192) {
      const tag = sealed.subarray(sealed.length - TAG_BYTES);
      return entry.cipher.open(sealed.subarray(1 + NONCE_BYTES, sealed.length - TAG_BYTES), {
        nonce,
        aad,
        tag,
      });
    }
    const decipher = createDecipheriv(entry.cipher as "aes-256-gcm", entry.secret, nonce, {
      authTagLength: TAG_BYTES,
    });
    if (aad) decipher.setAAD(aad);
    decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
    const body = decipher.update(sealed.subarray(1 + NONCE_BYTES, sealed.length - TAG_BYTES));
    try {
      decipher.final();
    } catch {
      return undefined; // Another key's.
    }
    // A plain view: slicing a Buffer would not copy.
    return new Uint8Array(body.buffer, body.byteOffset, body.length);
  }
}

/** Throws {@linkcode KeyringError} where the key is not of 16, 24 or 32 bytes. */
function toEntry(key: Uint8Array): Entry {
  if (key.length !== 16 && key.length !== 24 && key.length !== 32) {
    throw new KeyringError("key size must be 16, 24 or 32 bytes");
  }
  const raw = key.slice();
  const secret = createSecretKey(raw);
  const cipher = raw.length === 24 ? new Gcm192(secret) : raw.length === 16 ? "aes-128-gcm" : "aes-256-gcm";
  return { raw, secret, cipher };
}

const VERSION_1 = new Uint8Array([1]);

/** Takes off PKCS#7 padding; undefined where there is none. */
function unpad(padded: Uint8Array): Uint8Array | undefined {
  const pad = padded[padded.length - 1];
  if (pad === undefined || pad < 1 || pad > BLOCK_BYTES || pad > padded.length) return undefined;
  return padded.subarray(0, padded.length - pad);
}
