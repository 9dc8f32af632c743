import { isIP } from "node:net";
import type { ForwardingFacts } from "../http1/rewrite.ts";
import { HttpError } from "../http_error.ts";

/** What a request says of itself on its way from one node's proxy to another's. */
export interface HopFacts extends ForwardingFacts {
  /** Workload id, in lower case. */
  id: string;
}

/** The line that carries the facts. Nothing in it comes from the client. */
export function hopLine({ id, port, clientAddress, scheme }: HopFacts): string {
  return `Hypercore-Hop: ${id.toLowerCase()} ${port} ${clientAddress} ${scheme}\r\n`;
}

/** Parses the value of that field, as a member sent it. Throws {@linkcode HttpError} 400. */
export function parseHopField(value: string): HopFacts {
  const [id, port, address, scheme, ...more] = value.split(" ");
  const isGood = more.length === 0 && /^[^\s]{1,255}$/.test(id) && /^[1-9]\d{0,4}$/.test(port ?? "") &&
    Number(port) <= 65535 && isIP(address ?? "") !== 0 && (scheme === "http" || scheme === "https");
  if (!isGood) throw new HttpError(400, "malformed hop field");
  return { id, port: Number(port), clientAddress: address, scheme: scheme as "http" | "https" };
}
