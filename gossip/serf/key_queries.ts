import { DecodeError } from "../codec/error.ts";
import { type Keyring, KeyringError } from "../codec/keyring.ts";
import { MsgpackReader } from "../codec/msgpack_reader.ts";
import { decodeKeyRequest, encodeKeyResponse, type KeyResponse } from "../codec/serf_internal.ts";
import { SerfType } from "../codec/serf_messages.ts";
import type { KeyringState } from "../codec/serf_push_pull.ts";
import { equalBytes } from "../codec/text.ts";

/** What can be asked of every key ring of the cluster. */
export type KeyOperation = "install-key" | "use-key" | "remove-key" | "list-keys";

/** The key ring as the cluster's key queries, and push/pulls with our own members, change it. */
export class KeyManager {
  readonly #keyring: Keyring | undefined;
  readonly #changed: (keys: Uint8Array[]) => void;
  #version = 0;

  /** `changed` gets the keys after each change, to be stored. */
  constructor(keyring: Keyring | undefined, changed: (keys: Uint8Array[]) => void) {
    this.#keyring = keyring;
    this.#changed = changed;
  }

  /** What our own members are handed in push/pulls; only ever sent encrypted. */
  state(): KeyringState | undefined {
    if (this.#keyring === undefined || this.#version === 0) return undefined;
    return { version: this.#version, keys: this.#keyring.keys() };
  }

  /** Takes a newer ring, which went round while this node was away. */
  merge(state: KeyringState): void {
    if (this.#keyring === undefined || state.version <= this.#version) return;
    try {
      this.#keyring.replace(state.keys);
    } catch (error) {
      if (error instanceof KeyringError) return; // No ring at all: keep ours.
      throw error;
    }
    this.#version = state.version;
    this.#changed(this.#keyring.keys());
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
    const after = this.#keyring!.keys();
    this.#version = Math.max(this.#version, ltime);
    if (after.length === before.length && after.every((key, i) => equalBytes(key, before[i]))) return;
    this.#changed(after);
  }
}
