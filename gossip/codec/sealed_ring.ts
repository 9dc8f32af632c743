import {
  createCipheriv,
  createDecipheriv,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  hkdfSync,
  type KeyObject,
} from "node:crypto";
import type { Random } from "../random.ts";
import { DecodeError } from "./error.ts";
import { MsgpackReader } from "./msgpack_reader.ts";
import { MsgpackWriter } from "./msgpack_writer.ts";
import { type KeyringState, readKeyring, writeKeyring, X25519_BYTES } from "./serf_push_pull.ts";
import { concatBytes, utf8 } from "./text.ts";

const TAG_BYTES = 16;
/** Each message has a key of its own, so the nonce may be fixed. */
const NONCE = new Uint8Array(12);
const INFO = utf8("hypercore gossip key ring 1");
/** DER of an X25519 key up to its bytes: PKCS#8 and SPKI (RFC 8410). */
const PRIVATE_HEAD = Uint8Array.from([48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 110, 4, 34, 4, 32]);
const PUBLIC_HEAD = Uint8Array.from([48, 42, 48, 5, 6, 3, 43, 101, 110, 3, 33, 0]);

/** The public half of a secret of 32 random bytes. */
export function publicOf(secret: Uint8Array): Uint8Array {
  const der = createPublicKey(privateKey(secret)).export({ format: "der", type: "spki" });
  return new Uint8Array(der.subarray(der.length - X25519_BYTES));
}

/** A ring that was opened, and whose it was. */
export interface OpenedRing {
  ring: KeyringState;
  /** Public key of who sealed it. */
  from: Uint8Array;
}

/**
 * Seals a key ring so that only the holder of one secret opens it, and sees who sealed it: X25519 of a fresh key and
 * of the sender's own, HKDF-SHA-256, AES-256-GCM. Throws Error where `to` is no usable public key.
 */
export function sealRing(
  ring: KeyringState,
  options: { to: Uint8Array; secret: Uint8Array; random: Random },
): Uint8Array {
  const { to, secret } = options;
  const fresh = options.random.bytes(X25519_BYTES);
  const head = concatBytes([publicOf(fresh), publicOf(secret)]);
  const key = derive([agree(fresh, to), agree(secret, to)], concatBytes([head, to]));
  const out = new MsgpackWriter();
  writeKeyring(out, ring);
  const cipher = createCipheriv("aes-256-gcm", key, NONCE);
  const body = cipher.update(out.finish());
  return concatBytes([head, body, cipher.final(), cipher.getAuthTag()]);
}

/** Opens a ring that was sealed for this secret. Throws {@linkcode DecodeError} where it was not. */
export function openRing(sealed: Uint8Array, secret: Uint8Array): OpenedRing {
  const headBytes = 2 * X25519_BYTES;
  if (sealed.length < headBytes + TAG_BYTES) throw new DecodeError("key ring", "it is too short");
  const head = sealed.subarray(0, headBytes);
  const [fresh, from] = [head.subarray(0, X25519_BYTES), head.subarray(X25519_BYTES)];
  const end = sealed.length - TAG_BYTES;
  let plain: Uint8Array;
  try {
    const key = derive([agree(secret, fresh), agree(secret, from)], concatBytes([head, publicOf(secret)]));
    const decipher = createDecipheriv("aes-256-gcm", key, NONCE, { authTagLength: TAG_BYTES });
    decipher.setAuthTag(sealed.subarray(end));
    const body = decipher.update(sealed.subarray(headBytes, end));
    decipher.final();
    plain = new Uint8Array(body);
  } catch {
    throw new DecodeError("key ring", "it is sealed for another node");
  }
  return { ring: readKeyring(new MsgpackReader().reset(plain)), from: from.slice() };
}

function agree(secret: Uint8Array, theirs: Uint8Array): Uint8Array {
  const shared = diffieHellman({ privateKey: privateKey(secret), publicKey: publicKey(theirs) });
  // A point of low order would make a secret that everyone knows (RFC 7748, section 6.1).
  if (shared.every((byte) => byte === 0)) {
    throw new Error("Cannot agree on a key: the public key is unusable");
  }
  return new Uint8Array(shared);
}

function derive(shared: readonly Uint8Array[], salt: Uint8Array): Uint8Array {
  return new Uint8Array(hkdfSync("sha256", concatBytes(shared), salt, INFO, 32));
}

function privateKey(secret: Uint8Array): KeyObject {
  const der = concatBytes([PRIVATE_HEAD, secret]);
  return createPrivateKey({ key: der as unknown as string, format: "der", type: "pkcs8" });
}

function publicKey(bytes: Uint8Array): KeyObject {
  const der = concatBytes([PUBLIC_HEAD, bytes]);
  return createPublicKey({ key: der as unknown as string, format: "der", type: "spki" });
}
