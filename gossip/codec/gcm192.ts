import { createCipheriv, type KeyObject, timingSafeEqual } from "node:crypto";
import { NO_BYTES } from "./text.ts";

const BLOCK_BYTES = 16;

/**
 * AES-192-GCM (NIST SP 800-38D) with 12-byte nonces, from AES-192-CTR: the runtime has GCM for the other two key sizes
 * only, and a cluster may use this one.
 */
export class Gcm192 {
  readonly #secret: KeyObject;
  /** The hash key as four 32-bit words. */
  readonly #h: readonly [number, number, number, number];

  constructor(secret: KeyObject) {
    this.#secret = secret;
    const h = this.#ctr(new Uint8Array(BLOCK_BYTES), new Uint8Array(BLOCK_BYTES));
    const view = new DataView(h.buffer, h.byteOffset, h.length);
    this.#h = [view.getUint32(0), view.getUint32(4), view.getUint32(8), view.getUint32(12)];
  }

  /** Ciphertext and tag. */
  seal(
    plaintext: Uint8Array,
    options: { nonce: Uint8Array; aad?: Uint8Array },
  ): { body: Uint8Array; tag: Uint8Array } {
    const { mask, rest: body } = this.#crypt(plaintext, options.nonce);
    return { body, tag: this.#tag(body, mask, options.aad) };
  }

  /** Plaintext; undefined where the tag does not fit. */
  open(
    body: Uint8Array,
    options: { nonce: Uint8Array; aad?: Uint8Array; tag: Uint8Array },
  ): Uint8Array | undefined {
    const { mask, rest } = this.#crypt(body, options.nonce);
    return timingSafeEqual(this.#tag(body, mask, options.aad), options.tag) ? rest : undefined;
  }

  /** The first block of the key stream masks the tag, the rest encrypts. */
  #crypt(input: Uint8Array, nonce: Uint8Array): { mask: Uint8Array; rest: Uint8Array } {
    const counter = new Uint8Array(BLOCK_BYTES);
    counter.set(nonce);
    counter[BLOCK_BYTES - 1] = 1;
    const padded = new Uint8Array(BLOCK_BYTES + input.length);
    padded.set(input, BLOCK_BYTES);
    const out = this.#ctr(padded, counter);
    return { mask: out.subarray(0, BLOCK_BYTES), rest: out.subarray(BLOCK_BYTES) };
  }

  #ctr(input: Uint8Array, counter: Uint8Array): Uint8Array {
    const out = createCipheriv("aes-192-ctr", this.#secret, counter).update(input);
    return new Uint8Array(out.buffer, out.byteOffset, out.length);
  }

  #tag(body: Uint8Array, mask: Uint8Array, aad: Uint8Array = NO_BYTES): Uint8Array {
    const y = new Uint32Array(4);
    this.#absorb(y, aad);
    this.#absorb(y, body);
    const lengths = new Uint8Array(BLOCK_BYTES);
    const view = new DataView(lengths.buffer);
    view.setUint32(4, aad.length * 8);
    view.setUint32(12, body.length * 8);
    this.#absorb(y, lengths);
    const tag = new Uint8Array(BLOCK_BYTES);
    for (let i = 0; i < BLOCK_BYTES; i++) tag[i] = (y[i >> 2] >>> (24 - 8 * (i & 3))) ^ mask[i];
    return tag;
  }

  /** GHASH: takes the bytes, padded with zeros to whole blocks, into `y`. */
  #absorb(y: Uint32Array, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
      const end = Math.min(bytes.length, at + BLOCK_BYTES);
      for (let i = at; i < end; i++) y[(i - at) >> 2] ^= bytes[i] << (24 - 8 * ((i - at) & 3));
      this.#multiply(y);
    }
  }

  /** y = y · H in GF(2^128). */
  #multiply(y: Uint32Array): void {
    let [v0, v1, v2, v3] = this.#h;
    let z0 = 0, z1 = 0, z2 = 0, z3 = 0;
    for (let bit = 0; bit < 128; bit++) {
      const take = -((y[bit >> 5] >>> (31 - (bit & 31))) & 1);
      z0 ^= v0 & take;
      z1 ^= v1 & take;
      z2 ^= v2 & take;
      z3 ^= v3 & take;
      const carry = -(v3 & 1) & 0xe1000000;
      v3 = (v3 >>> 1) | (v2 << 31);
      v2 = (v2 >>> 1) | (v1 << 31);
      v1 = (v1 >>> 1) | (v0 << 31);
      v0 = (v0 >>> 1) ^ carry;
    }
    y[0] = z0;
    y[1] = z1;
    y[2] = z2;
    y[3] = z3;
  }
}
