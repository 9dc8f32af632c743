import type { StateClaim, StateSigner, StateVerifier, Verdict } from "../cluster/ports.ts";
import { type NodeIdentity, SIGNATURE_BYTES, verify } from "./identity.ts";
import type { PinnedPeers } from "./identity_pins.ts";
import { fromBase64, parseRotations, rotationText } from "./identity_rotation.ts";

/** Signs what this node says of itself with its identity, in the context `hypercore/state/1`. */
export class IdentitySigner implements StateSigner {
  readonly #identity: NodeIdentity;

  constructor(identity: NodeIdentity) {
    this.#identity = identity;
  }

  get publicKey(): Uint8Array<ArrayBuffer> {
    return this.#identity.publicKey as Uint8Array<ArrayBuffer>;
  }

  get rotations(): string[] {
    return this.#identity.rotations.map(rotationText);
  }

  sign(bytes: Uint8Array): string {
    return this.#identity.sign("hypercore/state/1", bytes).toBase64();
  }
}

/** What a {@linkcode PinningVerifier} is told. */
export interface PinningOptions {
  pins: PinnedPeers;
  /** Believe no state without a signature. */
  requireSigned: boolean;
  nowMs: () => number;
  /** A key was pinned, or a peer has a new one: the pins are to be stored. */
  onPinned: () => void;
}

/**
 * Believes a state that its node signed: with the key that its id is bound to, or one that the pinned key leads to. A node
 * whose key is known says nothing unsigned any more.
 */
export class PinningVerifier implements StateVerifier {
  readonly #options: PinningOptions;

  constructor(options: PinningOptions) {
    this.#options = options;
  }

  verify({ nodeId, bytes, header, signature, publicKey }: StateClaim): Verdict {
    const { pins, requireSigned, nowMs, onPinned } = this.#options;
    if (signature === "") {
      if (pins.get(nodeId) !== undefined) {
        return { refused: "it is not signed, and the node has signed before" };
      }
      return requireSigned ? { refused: "it is not signed" } : "unsigned";
    }
    const signatureBytes = fromBase64(signature, SIGNATURE_BYTES);
    if (signatureBytes === undefined || !verify(publicKey, "hypercore/state/1", bytes, signatureBytes)) {
      return { refused: "its signature is not good" };
    }
    const parsed = parseRecords(header.rotations);
    if ("reason" in parsed) return { refused: parsed.reason };
    const verdict = pins.accept({ nodeId, publicKey, rotations: parsed.rotations }, nowMs());
    if (!verdict.accepted) return { refused: verdict.reason };
    if (verdict.change !== "none") onPinned();
    return "verified";
  }
}

function parseRecords(texts: readonly string[]): ReturnType<typeof parseRotations> {
  try {
    return parseRotations(texts.map((text) => JSON.parse(text)));
  } catch {
    return { reason: "a rotation cannot be read" };
  }
}
