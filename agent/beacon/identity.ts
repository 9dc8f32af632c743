import { Buffer } from "node:buffer";
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from "node:crypto";
import { sign as signBytes, verify as verifyBytes } from "node:crypto";
import type { RotationRecord } from "./identity_rotation.ts";

/** Bytes of an Ed25519 public key (RFC 8032). */
export const PUBLIC_KEY_BYTES = 32;
/** Bytes of an Ed25519 signature. */
export const SIGNATURE_BYTES = 64;

/**
 * What a signature is about. The context stands before the signed bytes, with a line feed between, so that what was
 * signed as one kind of message is never taken for another.
 */
export type SigningContext =
  | "hypercore/state/1"
  | "hypercore/proof/1"
  | "hypercore/attest/1"
  | "hypercore/beacon/1"
  | "hypercore/register/1"
  | "hypercore/rotate/1";

/** Who this node is, and its signature. */
export interface NodeIdentity extends IdentityClaim {
  sign(context: SigningContext, bytes: Uint8Array): Uint8Array<ArrayBuffer>;
}

/** Who a node says it is: {@linkcode verifyClaim} tells whether that can be. */
export interface IdentityClaim {
  /** UUID of version 8 made of the node's first public key; it stays when the key is rotated. */
  readonly nodeId: string;
  /** The newest key, 32 bytes. */
  readonly publicKey: Uint8Array;
  /** How the first key became the newest, oldest first; empty while the first key is in use. */
  readonly rotations: readonly RotationRecord[];
}

/** A node's id: the first 16 bytes of SHA-256 of its first public key as a UUID of version 8 (RFC 9562). */
export function nodeIdOf(publicKey: Uint8Array): string {
  const bytes = createHash("sha256").update(publicKey).digest().subarray(0, 16);
  bytes[6] = 0x80 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Whether `publicKey` signed `bytes` in this context. False, never an error, for whatever a peer may send. */
export function verify(
  publicKey: Uint8Array,
  context: SigningContext,
  bytes: Uint8Array,
  signature: Uint8Array,
): boolean {
  if (publicKey.length !== PUBLIC_KEY_BYTES || signature.length !== SIGNATURE_BYTES) return false;
  try {
    return verifyBytes(null, inContext(context, bytes), publicKeyObject(publicKey), signature);
  } catch {
    return false; // 32 bytes that are no point of the curve
  }
}

/** An Ed25519 private key; it never leaves this object but by {@linkcode PrivateKey.pem}. */
export class PrivateKey {
  readonly #key: KeyObject;
  /** 32 bytes. */
  readonly publicKey: Uint8Array<ArrayBuffer>;

  private constructor(key: KeyObject) {
    this.#key = key;
    const spki = createPublicKey(key).export({ format: "der", type: "spki" });
    this.publicKey = new Uint8Array(spki.subarray(spki.length - PUBLIC_KEY_BYTES));
  }

  /** A fresh one. */
  static generate(): PrivateKey {
    return new PrivateKey(generateKeyPairSync("ed25519").privateKey);
  }

  /** From PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` makes it. Throws an Error for anything else. */
  static fromPem(pem: string): PrivateKey {
    let key: KeyObject;
    try {
      key = createPrivateKey({ key: pem, format: "pem" });
    } catch (error) {
      throw new Error("it holds no readable private key", { cause: error });
    }
    if (key.asymmetricKeyType !== "ed25519") {
      throw new Error(`its key is ${key.asymmetricKeyType}, not ed25519`);
    }
    return new PrivateKey(key);
  }

  /** PKCS#8 in PEM. */
  pem(): string {
    const text = this.#key.export({ format: "pem", type: "pkcs8" }).toString();
    return text.endsWith("\n") ? text : `${text}\n`;
  }

  sign(context: SigningContext, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
    return new Uint8Array(signBytes(null, inContext(context, bytes), this.#key));
  }
}

/** A public key in PEM, as openssl reads it. */
export function publicKeyPem(publicKey: Uint8Array): string {
  const text = publicKeyObject(publicKey).export({ format: "pem", type: "spki" }).toString();
  return text.endsWith("\n") ? text : `${text}\n`;
}

/** DER before the 32 bytes of an Ed25519 key (RFC 8410). */
const SPKI_PREFIX = Buffer.from("302a300506032b6570032100", "hex");

function publicKeyObject(publicKey: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([SPKI_PREFIX, publicKey]), format: "der", type: "spki" });
}

function inContext(context: SigningContext, bytes: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.from(`${context}\n`), bytes]);
}
