import { DecodeError } from "../codec/error.ts";
import { type Keyring, KeyringError } from "../codec/keyring.ts";
import { MsgpackReader } from "../codec/msgpack_reader.ts";
import { decodeKeyRequest, encodeKeyResponse, type KeyResponse } from "../codec/serf_internal.ts";
import { openRing, publicOf, sealRing } from "../codec/sealed_ring.ts";
import { MAX_TIME, SerfType } from "../codec/serf_messages.ts";
import { type KeyringState, X25519_BYTES } from "../codec/serf_push_pull.ts";
import type { Tags } from "../codec/tags.ts";
import { equalBytes } from "../codec/text.ts";
import type { Random } from "../random.ts";

/** What can be asked of every key ring of the cluster. */
export type KeyOperation = "install-key" | "use-key" | "remove-key" | "list-keys";

/** Tag under which a node's public key is told, so that a key ring can be sealed for it (base64url). */
export const REJOIN_TAG = "rejoin";
/** Versions beyond this are no counters of ours. */
const MAX_VERSION = MAX_TIME - 2 ** 20;
/** Rings sealed in a row for nodes that missed a rotation, and the time after which one more is. */
const SEAL_BURST = 16;
const SEAL_REFILL_MS = 1_000;

/** What outlives the process besides the ring itself. */
export interface KeyMemory {
  /** Counter of key operations; the ring with the higher one holds. */
  version: number;
  /** X25519; opens a ring that others seal for this node. */
  secret: Uint8Array;
  /** Public keys of members that are away, by name. */
  doors: ReadonlyMap<string, Uint8Array>;
}

/** What a {@linkcode KeyManager} is made of. */
export interface KeyManagerOptions {
  keyring: Keyring | undefined;
  memory?: KeyMemory;
  random: Random;
  /** Public keys of members that are away, and are not listed here, that are kept. */
  remembered: number;
  /** Members that failed. */
  failed(): Iterable<{ name: string; tags: Tags }>;
  /** Gets the keys after each change, to be stored. */
  changed(keys: Uint8Array[]): void;
}

/**
 * The key ring as the cluster's key queries, and push/pulls with our own members, change it. A removed key opens
 * nothing but the door: who knocks with it, by name, gets the ring sealed for the public key that this name told while
 * it was a member. So a node that slept through a whole rotation gets in, and a thief of an old key does not.
 */
export class KeyManager {
  readonly #keyring: Keyring | undefined;
  readonly #options: KeyManagerOptions;
  readonly #secret: Uint8Array;
  /** Public keys of members that are away and not listed here: forgotten, or known from others. */
  readonly #doors: Map<string, Uint8Array>;
  /** Members that were pruned: what others still remember of them does not count. */
  readonly #shut = new Set<string>();
  /** Rings sealed for members that missed a rotation, and rings that this node took over from others. */
  sealed = 0;
  taken = 0;
  #version: number;
  #publicKey: string | undefined;
  #seals = SEAL_BURST;
  #sealsAtMs = 0;

  constructor(options: KeyManagerOptions) {
    this.#options = options;
    this.#keyring = options.keyring;
    this.#version = options.memory?.version ?? 0;
    this.#secret = options.memory?.secret ?? options.random.bytes(X25519_BYTES);
    this.#doors = new Map(options.memory?.doors);
  }

  /** Whether gossip is encrypted. */
  get encrypted(): boolean {
    return this.#keyring !== undefined;
  }

  /** What is to be kept for the next life; undefined without a key ring. */
  get memory(): KeyMemory | undefined {
    return this.#keyring && { version: this.#version, secret: this.#secret, doors: this.doors() };
  }

  /** Public keys of all members that are away, at most as many as are kept. */
  doors(): ReadonlyMap<string, Uint8Array> {
    const { failed, remembered } = this.#options;
    const all = new Map(this.#doors);
    if (this.#keyring === undefined) return all;
    for (const member of failed()) {
      const door = publicKeyIn(member.tags);
      if (door !== undefined && all.size < remembered) all.set(member.name, door);
    }
    return all;
  }

  /** Takes over what another member knows of one that is away and not listed here. */
  learn(name: string, door: Uint8Array): void {
    if (door.length === X25519_BYTES && !this.#shut.has(name)) this.#keep(name, door);
  }

  /** A member was pruned: it gets in no more, whatever others remember. */
  shut(name: string): void {
    this.#doors.delete(name);
    this.#shut.add(name);
    if (this.#shut.size > this.#options.remembered) {
      const [oldest] = this.#shut;
      this.#shut.delete(oldest);
    }
  }

  /** A member is here: its tags say what there is to know. */
  arrived(name: string): void {
    if (this.#doors.size > 0) this.#doors.delete(name);
    if (this.#shut.size > 0) this.#shut.delete(name);
  }

  #keep(name: string, door: Uint8Array): void {
    if (this.#keyring === undefined) return;
    this.#doors.delete(name);
    this.#doors.set(name, door);
    if (this.#doors.size > this.#options.remembered) {
      const [oldest] = this.#doors.keys();
      this.#doors.delete(oldest);
    }
  }

  /** `tags` with this node's public key, where gossip is encrypted. */
  withPublicKey(tags: Tags): Tags {
    if (this.#keyring === undefined) return tags;
    this.#publicKey ??= publicOf(this.#secret).toBase64({ alphabet: "base64url", omitPadding: true });
    return new Map([...tags, [REJOIN_TAG, this.#publicKey]]);
  }

  /** Public keys that are kept. */
  get remembered(): number {
    return this.#doors.size;
  }

  /** A failed member is no longer listed; it may come back all the same. */
  remember(member: { name: string; tags: Tags }): void {
    const door = publicKeyIn(member.tags);
    if (door !== undefined && !this.#shut.has(member.name)) this.#keep(member.name, door);
  }

  /** What our own members are handed in push/pulls; only ever sent encrypted. */
  state(): KeyringState | undefined {
    if (this.#keyring === undefined || this.#version === 0) return undefined;
    return this.#state(this.#keyring);
  }

  /** Takes a newer ring, which went round while this node was away. */
  merge(state: KeyringState): void {
    if (this.#isNewer(state)) this.#replace(state);
    else this.#rememberRetired(state);
  }

  #rememberRetired(state: KeyringState): void {
    try {
      this.#keyring?.retire(state.retired);
    } catch (error) {
      if (!(error instanceof KeyringError)) throw error; // No keys at all.
    }
  }

  /** The ring for a member that knocked with a removed key; undefined where its public key is not known. */
  sealFor(
    name: string,
    options: { member: { tags: Tags } | undefined; nowMs: number },
  ): Uint8Array | undefined {
    const to = (options.member && publicKeyIn(options.member.tags)) ?? this.#doors.get(name);
    if (this.#keyring === undefined || to === undefined || !this.#maySeal(options.nowMs)) return undefined;
    this.sealed++;
    try {
      return sealRing(this.#state(this.#keyring), { to, secret: this.#secret, random: this.#options.random });
    } catch {
      return undefined; // The public key is none.
    }
  }

  #state(keyring: Keyring): KeyringState {
    return { version: this.#version, keys: keyring.keys(), retired: keyring.retired() };
  }

  #maySeal(nowMs: number): boolean {
    this.#seals = Math.min(SEAL_BURST, this.#seals + Math.max(0, nowMs - this.#sealsAtMs) / SEAL_REFILL_MS);
    this.#sealsAtMs = nowMs;
    if (this.#seals < 1) return false;
    this.#seals--;
    return true;
  }

  /**
   * Takes a ring that was sealed for this node; true where it is another than ours. After a knock of our own it must
   * be newer and come from a member that is known. Throws {@linkcode DecodeError} where it cannot be opened.
   */
  open(
    sealed: Uint8Array,
    options: { knocked: boolean; name: string; member: { tags: Tags } | undefined },
  ): boolean {
    if (this.#keyring === undefined) return false;
    const { ring, from } = openRing(sealed, this.#secret);
    if (options.knocked) {
      const door = (options.member && publicKeyIn(options.member.tags)) ?? this.#doors.get(options.name);
      if (door === undefined || !equalBytes(door, from)) {
        throw new DecodeError("key ring", "a stranger sealed it");
      }
      if (!this.#isNewer(ring)) return false;
    }
    return this.#replace(ring);
  }

  #isNewer(state: KeyringState): boolean {
    if (this.#keyring === undefined || state.version > MAX_VERSION || state.keys.length === 0) return false;
    if (state.version !== this.#version) return state.version > this.#version;
    // Two rings of one version, as of two halves that rotated on their own: all sides choose the same.
    return compareBytes(state.keys[0], this.#keyring.primary) > 0;
  }

  #replace(state: KeyringState): boolean {
    const keyring = this.#keyring!;
    const before = keyring.keys();
    try {
      keyring.replace(state.keys);
    } catch (error) {
      if (error instanceof KeyringError) return false; // No ring at all: keep ours.
      throw error;
    }
    this.#rememberRetired(state);
    this.#version = Math.max(this.#version, Math.min(state.version, MAX_VERSION));
    this.taken++;
    this.#options.changed(keyring.keys());
    return !sameKeys(before, keyring.keys());
  }

  /** Does what a key query asks; gives its answer, which fits `limit` bytes. */
  handle(operation: KeyOperation, query: { payload: Uint8Array; ltime: number; limit: number }): Uint8Array {
    const response = this.#apply(operation, query.payload, query.ltime);
    let encoded = encodeKeyResponse(response);
    while (encoded.length > query.limit && response.keys.length > 0) {
      response.keys.pop();
      response.message = "truncated key list response";
      encoded = encodeKeyResponse(response);
    }
    return encoded;
  }

  #apply(operation: KeyOperation, payload: Uint8Array, ltime: number): KeyResponse {
    const refuse = (message: string): KeyResponse => ({ result: false, message, keys: [], primaryKey: "" });
    const keyring = this.#keyring;
    if (keyring === undefined) return refuse("No keyring to modify (encryption not enabled)");
    try {
      if (operation === "list-keys") {
        return {
          result: true,
          message: "",
          keys: keyring.keys().map((key) => key.toBase64()),
          primaryKey: keyring.primary.toBase64(),
        };
      }
      if (payload[0] !== SerfType.keyRequest) return refuse("the query holds no key request");
      const key = decodeKeyRequest(new MsgpackReader().reset(payload, 1));
      const before = keyring.keys();
      if (operation === "install-key") keyring.install(key);
      else if (operation === "use-key") keyring.use(key);
      else keyring.remove(key);
      this.#noteChange(before, ltime);
      return { result: true, message: "", keys: [], primaryKey: "" };
    } catch (error) {
      if (error instanceof KeyringError || error instanceof DecodeError) return refuse(error.message);
      throw error;
    }
  }

  #noteChange(before: readonly Uint8Array[], ltime: number): void {
    // Lamport times start anew in a cluster that was down as a whole; the version must not.
    this.#version = Math.min(MAX_VERSION, Math.max(this.#version + 1, ltime));
    const after = this.#keyring!.keys();
    if (!sameKeys(before, after)) this.#options.changed(after);
  }
}

function publicKeyIn(tags: Tags): Uint8Array | undefined {
  const text = tags.get(REJOIN_TAG);
  if (text === undefined || !/^[A-Za-z0-9_-]{43}$/.test(text)) return undefined;
  return Uint8Array.fromBase64(text, { alphabet: "base64url" });
}

function sameKeys(a: readonly Uint8Array[], b: readonly Uint8Array[]): boolean {
  return a.length === b.length && a.every((key, i) => equalBytes(key, b[i]));
}

function compareBytes(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return a[i] - b[i];
  return a.length - b.length;
}
