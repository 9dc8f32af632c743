import { type Authority, parseAuthority } from "./authority.ts";
import type { ClientInfo, WorkerContext } from "./context.ts";
import { type HopFacts, hopLine, parseHopField } from "./hop/hop_field.ts";
import { latin1, latin1Bytes } from "./http1/bytes.ts";
import type { RequestHead } from "./http1/head.ts";
import { forwardingFields } from "./http1/rewrite.ts";
import { HttpError } from "./http_error.ts";
import type { Route, Upstream } from "./mod.ts";

const NOTHING = new Uint8Array(0);

/**
 * Finds the routes of one connection's requests, and says who asked. What follows from the Host field is kept, as mostly the
 * next request has the same.
 */
export class Http1Router {
  #host = "";
  #authority: Authority = { hostname: "", label: "" };
  #forwarding = NOTHING;
  /** The last hop field, and what it says. */
  #hop = "";
  #facts: HopFacts;
  #hopLine = NOTHING;

  constructor(private readonly context: WorkerContext, private readonly client: ClientInfo) {
    const { address, hostPort, secure } = client;
    this.#facts = { id: "", clientAddress: address, scheme: secure ? "https" : "http", port: hostPort };
  }

  /** The route of a request that has been parsed from `buffer`. Throws {@linkcode HttpError}: 400, 404, 421. */
  route({ hostStart, hostEnd, hopStart, hopEnd }: RequestHead, buffer: Uint8Array): Route {
    const isHop = this.client.hop !== undefined;
    const isSameHop = !isHop || (this.#hop !== "" && equalsText(buffer, hopStart, hopEnd, this.#hop));
    if (!isSameHop || !equalsText(buffer, hostStart, hostEnd, this.#host)) {
      if (isHop) this.#facts = parseHopField(this.#hop = latin1(buffer, hopStart, hopEnd));
      const host = latin1(buffer, hostStart, hostEnd);
      this.#authority = parseAuthority(host);
      this.#host = host;
      this.#forwarding = latin1Bytes(forwardingFields(this.#facts, host));
    }
    if (this.#host === "") throw new HttpError(400, "empty Host");
    if (isHop) return this.#localRoute();
    const route = this.current();
    if (!route) throw new HttpError(404, "no workload answers to this host name here");
    return route;
  }

  /** What the table says at present of the host asked for last. */
  readonly current = (): Route | undefined =>
    this.context.routes.lookup(this.client.hostPort, this.#authority);

  /** The lines that tell a container, or the proxy of its node, who asks. */
  forwarding(upstream: Upstream, { id }: Route): Uint8Array {
    if (upstream.kind === "tcp") return this.#forwarding;
    if (this.#facts.id !== id) {
      this.#facts = { ...this.#facts, id };
      this.#hopLine = latin1Bytes(hopLine(this.#facts));
    }
    return this.#hopLine;
  }

  /** The longest such lines. */
  get mostForwarding(): number {
    return this.#forwarding.length;
  }

  /** What came by a hop is served here or not at all. */
  #localRoute(): Route {
    const { id, port } = this.#facts;
    const upstream = this.context.routes.lookupLocal(port, id);
    if (!upstream) throw new HttpError(421, "the workload does not run on this node", { hop: "not-here" });
    this.context.counters.hopsReceived++;
    return { id, aliases: [], hostPort: port, upstream };
  }
}

/** Whether `buffer[start, end)` is exactly that Latin-1 text. */
function equalsText(buffer: Uint8Array, start: number, end: number, text: string): boolean {
  if (end - start !== text.length) return false;
  for (let i = 0; i < text.length; i++) {
    if (buffer[start + i] !== text.charCodeAt(i)) return false;
  }
  return true;
}
