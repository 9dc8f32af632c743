import { createHash } from "node:crypto";

/** Certificates of other nodes that are remembered; the oldest gives way, and is asked for anew when it is needed. */
export const MAX_CERTIFICATES = 4_096;

/** Certificates of other nodes that have been seen, by fingerprint. */
export class Certificates {
  readonly #pem = new Map<string, string>();

  /** A certificate as PEM; undefined where it was not seen, or is forgotten. */
  get(fingerprint: string): string | undefined {
    return this.#pem.get(fingerprint);
  }

  /** Remembers a certificate, DER, and gives it as PEM. Throws an Error where it is not the one of that fingerprint. */
  learn(fingerprint: string, der: Uint8Array | undefined): string {
    if (!der || createHash("sha256").update(der).digest("hex") !== fingerprint) {
      throw new Error("the node shows another certificate than the pinned one");
    }
    const lines = der.toBase64().match(/.{1,64}/g)!.join("\n");
    const pem = `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
    if (this.#pem.size >= MAX_CERTIFICATES) this.#pem.delete(this.#pem.keys().next().value!);
    this.#pem.set(fingerprint, pem);
    return pem;
  }
}
