/** Why a handshake failed: its number on the wire and how it reads, seen from the end that is told. */
const REFUSALS = {
  version: { code: 1, text: "it speaks another version of the handshake" },
  "key-needed": { code: 2, text: "its cluster has a key, and this node runs without one" },
  "no-key": { code: 3, text: "it runs without a cluster key, and this node has one" },
  proof: { code: 4, text: "the two nodes hold different cluster keys" },
  malformed: { code: 5, text: "it does not speak the handshake" },
  busy: { code: 6, text: "it has too many connections open" },
  closing: { code: 7, text: "it is shutting down" },
  "wrong-node": { code: 8, text: "another node answers at its address" },
  timeout: { code: 9, text: "it did not finish the handshake in time" },
  closed: { code: 10, text: "it closed the connection during the handshake" },
  certificate: { code: 11, text: "its certificate is not the one it announces" },
} as const;

/** Why a handshake failed. */
export type Refusal = keyof typeof REFUSALS;

/** All of them, for metrics. */
export const REFUSAL_NAMES = Object.keys(REFUSALS) as readonly Refusal[];

/** The number of a refusal on the wire. */
export function refusalCode(refusal: Refusal): number {
  return REFUSALS[refusal].code;
}

/** The refusal with this number; "malformed" for numbers of later versions. */
export function refusalOf(code: number): Refusal {
  return REFUSAL_NAMES.find((name) => REFUSALS[name].code === code) ?? "malformed";
}

/** A handshake that failed. The message is the reason alone, to stand behind `Cannot reach node "x": `. */
export class HandshakeError extends Error {
  override readonly name = "HandshakeError";

  /** @param by the end that found the fault */
  constructor(readonly refusal: Refusal, readonly by: "us" | "peer") {
    super(by === "peer" ? `it refused the connection: ${fromAfar(refusal)}` : REFUSALS[refusal].text);
  }
}

/** A refusal of the peer's in words of this end. */
function fromAfar(refusal: Refusal): string {
  switch (refusal) {
    case "malformed":
      return "it could not read what this node sent";
    case "timeout":
      return "this node did not finish the handshake in time";
    default:
      return REFUSALS[refusal].text;
  }
}
