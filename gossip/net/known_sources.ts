import { Endpoint } from "../endpoint.ts";

/** Senders of packets whose address in text is remembered as bytes; one more, and all are read anew. */
export const MAX_KNOWN_SOURCES = 8_192;

/** Where packets come from: the system says it in text, and says mostly the same. */
export class KnownSources {
  readonly #known = new Map<string, Endpoint>();

  /** Senders that are remembered. */
  get size(): number {
    return this.#known.size;
  }

  /** The sender at an IP address and a port; undefined where the text is no IP address. */
  endpoint(hostname: string, port: number): Endpoint | undefined {
    const key = `${hostname} ${port}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const endpoint = Endpoint.parse(hostname, port);
    if (endpoint === undefined) return undefined;
    if (this.#known.size >= MAX_KNOWN_SOURCES) this.#known.clear();
    this.#known.set(key, endpoint);
    return endpoint;
  }
}
