import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import {
  decodeMessage,
  encodeMessage,
  HANDSHAKE_VERSION,
  type Introduction,
  type Message,
} from "./messages.ts";
import type { Refusal } from "./refusal.ts";

/** What is the same at both ends of one TLS connection, and of no other. */
export interface ChannelBinding {
  /** What ALPN chose. */
  protocol: string;
  /** Keying material exported by TLS (RFC 5705) under the client's label; empty where the protocol goes without. */
  clientExporter: Uint8Array;
  /** The same under the server's label. */
  serverExporter: Uint8Array;
  /** SHA-256 of the server's certificate (DER). */
  serverFingerprint: Uint8Array;
}

/** What an end needs to prove that it is a member, and to judge the other. */
export interface ProofOptions {
  /** This node's id. */
  nodeId: string;
  /** Derived keys (see `derivePeerKeys`), the primary first; none in a cluster without a key. */
  keys: readonly Uint8Array[];
  /** Fresh random bytes. */
  nonce: Uint8Array;
  binding: ChannelBinding;
}

/** What to do next. `send` goes out first in each case. */
export type Step =
  | { kind: "read"; send?: Uint8Array }
  /** Both are members. `peerId` is what the other end says it is, `key` by which both proved it. */
  | { kind: "done"; send?: Uint8Array; peerId: string; key: Uint8Array | undefined }
  /** The connection is to be closed. */
  | { kind: "failed"; send?: Uint8Array; refusal: Refusal; by: "us" | "peer" };

/** The calling end of the handshake: hello, challenge, proof, accept. */
export class ClientProof {
  readonly #options: ProofOptions;
  readonly #expectedId: string;
  readonly #hello: Uint8Array;
  #awaits: "challenge" | "accept" | "nothing" = "challenge";
  #transcript = new Uint8Array();

  /** `expectedId` is the id of the node that is to answer. */
  constructor(options: ProofOptions, { expectedId }: { expectedId: string }) {
    this.#options = options;
    this.#expectedId = expectedId;
    this.#hello = encodeMessage({ type: "hello", ...introduction(options) });
  }

  /** The first message. */
  start(): Step {
    return { kind: "read", send: this.#hello };
  }

  /** Takes a message with its header. */
  receive(bytes: Uint8Array): Step {
    const message = decodeMessage(bytes);
    if (message?.type === "refuse") return this.#fail(message.refusal, "peer");
    if (message === undefined || message.type !== this.#awaits) return this.#fail("malformed");
    if (message.type === "challenge") return this.#answer(message, bytes);
    this.#awaits = "nothing";
    const [key] = this.#options.keys;
    const isTrue = key === undefined
      ? message.type === "accept" && message.mac.length === 0
      : message.type === "accept" && isSame(message.mac, prove(key, "server", this.#transcript));
    return isTrue ? { kind: "done", peerId: this.#expectedId, key } : this.#fail("proof");
  }

  #answer(message: Message & { type: "challenge" }, bytes: Uint8Array): Step {
    const { version, introduction } = message;
    const { keys, binding } = this.#options;
    if (version !== HANDSHAKE_VERSION) return this.#fail("version");
    if (introduction.keyed !== keys.length > 0) return this.#fail(keys.length > 0 ? "no-key" : "key-needed");
    if (introduction.nodeId !== this.#expectedId) return this.#fail("wrong-node");
    this.#awaits = "accept";
    this.#transcript = transcriptHash(binding, [this.#hello, bytes]);
    const mac = keys.length > 0 ? prove(keys[0], "client", this.#transcript) : new Uint8Array();
    return { kind: "read", send: encodeMessage({ type: "proof", mac }) };
  }

  #fail(refusal: Refusal, by: "us" | "peer" = "us"): Step {
    this.#awaits = "nothing";
    return { kind: "failed", refusal, by };
  }
}

/** The called end. It proves itself last, by the key that the caller used, and tells a stranger nothing. */
export class ServerProof {
  readonly #options: ProofOptions;
  #awaits: "hello" | "proof" | "nothing" = "hello";
  #peerId = "";
  #transcript = new Uint8Array();

  constructor(options: ProofOptions) {
    this.#options = options;
  }

  /** Takes a message with its header. */
  receive(bytes: Uint8Array): Step {
    const message = decodeMessage(bytes);
    if (message === undefined || message.type !== this.#awaits) return this.#refuse("malformed");
    if (message.type === "hello") return this.#challenge(message, bytes);
    if (message.type === "proof") return this.#judge(message.mac);
    return this.#refuse("malformed");
  }

  #challenge({ version, introduction: caller }: Message & { type: "hello" }, bytes: Uint8Array): Step {
    const { keys, binding } = this.#options;
    if (version !== HANDSHAKE_VERSION) return this.#refuse("version");
    if (caller.keyed !== keys.length > 0) return this.#refuse(keys.length > 0 ? "key-needed" : "no-key");
    const challenge = encodeMessage({ type: "challenge", ...introduction(this.#options) });
    this.#awaits = "proof";
    this.#peerId = caller.nodeId;
    this.#transcript = transcriptHash(binding, [bytes, challenge]);
    return { kind: "read", send: challenge };
  }

  #judge(mac: Uint8Array): Step {
    const { keys } = this.#options;
    this.#awaits = "nothing";
    if (keys.length === 0) {
      if (mac.length > 0) return this.#refuse("malformed");
      return this.#accept(new Uint8Array(), undefined);
    }
    const key = keys.filter((each) => isSame(mac, prove(each, "client", this.#transcript)))[0];
    if (key === undefined) return this.#refuse("proof");
    return this.#accept(prove(key, "server", this.#transcript), key);
  }

  #accept(mac: Uint8Array, key: Uint8Array | undefined): Step {
    return { kind: "done", send: encodeMessage({ type: "accept", mac }), peerId: this.#peerId, key };
  }

  #refuse(refusal: Refusal): Step {
    this.#awaits = "nothing";
    return { kind: "failed", send: encodeMessage({ type: "refuse", refusal }), refusal, by: "us" };
  }
}

function introduction({ nodeId, keys, nonce }: ProofOptions): {
  version: number;
  introduction: Introduction;
} {
  return { version: HANDSHAKE_VERSION, introduction: { keyed: keys.length > 0, nonce, nodeId } };
}

/** All that the two ends must agree on, each part with its length before it. */
function transcriptHash(binding: ChannelBinding, messages: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const hash = createHash("sha256");
  const parts = [
    new TextEncoder().encode("hypercore peer handshake 1"),
    new TextEncoder().encode(binding.protocol),
    binding.clientExporter,
    binding.serverExporter,
    binding.serverFingerprint,
    ...messages,
  ];
  for (const part of parts) {
    hash.update(Uint8Array.of(part.length >> 8, part.length & 0xff));
    hash.update(part);
  }
  return new Uint8Array(hash.digest());
}

/** The role keeps one end's proof from being sent back to it as the other's. */
function prove(key: Uint8Array, role: "client" | "server", transcript: Uint8Array): Uint8Array {
  return new Uint8Array(createHmac("sha256", key).update(`${role}\0`).update(transcript).digest());
}

function isSame(given: Uint8Array, wanted: Uint8Array): boolean {
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}
