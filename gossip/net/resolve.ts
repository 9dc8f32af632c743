import { Endpoint, splitHostPort } from "../endpoint.ts";

/** Addresses tried of one host name. */
const MAX_ADDRESSES = 16;

/**
 * Endpoints of a join address: `host`, `host:port`, `[v6]:port`, or `name/host:port`. Throws Error where it is none, or
 * the host name has no address.
 */
export async function resolveEndpoints(address: string, defaultPort: number): Promise<Endpoint[]> {
  const slash = address.indexOf("/");
  const parts = splitHostPort(slash < 0 ? address : address.slice(slash + 1), defaultPort);
  if (parts === undefined) throw new Error(`Cannot join "${address}": it is not host:port`);
  const literal = Endpoint.parse(parts.host, parts.port);
  if (literal !== undefined) return [literal];
  const found: Endpoint[] = [];
  const answers = await Promise.allSettled([
    Deno.resolveDns(parts.host, "A"),
    Deno.resolveDns(parts.host, "AAAA"),
  ]);
  for (const answer of answers) {
    if (answer.status === "rejected") continue;
    for (const host of answer.value) {
      const endpoint = Endpoint.parse(host, parts.port);
      if (endpoint !== undefined) found.push(endpoint);
    }
  }
  if (found.length === 0) throw new Error(`Cannot join "${address}": the host name has no address`);
  return found.slice(0, MAX_ADDRESSES);
}

/** First private IPv4 address of the machine, else its first address that is not loopback; undefined without any. */
export function privateAddress(): string | undefined {
  const hosts = Deno.networkInterfaces().map((entry) => entry.address).filter((host) => {
    return host !== "127.0.0.1" && host !== "::1" && !host.startsWith("fe80:");
  });
  const isPrivate = (host: string) => /^(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.)/.test(host);
  return hosts.find(isPrivate) ?? hosts.find((host) => !host.includes(":")) ?? hosts[0];
}
