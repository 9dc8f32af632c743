import { lookup } from "node:dns/promises";
import { Endpoint, splitHostPort } from "../endpoint.ts";

/** Addresses tried of one name. */
const MAX_ADDRESSES = 16;
/** `_service._proto.name`, as in RFC 2782. */
const SRV_NAME = /^_[^.]+\._(tcp|udp)\..+$/i;

/** Finds what is behind names. */
export interface Resolver {
  /** IP addresses of a host name; throws where it has none. */
  host(name: string, signal?: AbortSignal): Promise<string[]>;
  /** Hosts and ports of a service name, the preferred ones first; throws where it has none. */
  service(name: string, signal?: AbortSignal): Promise<{ host: string; port: number }[]>;
}

/** The machine's own: host names as every program sees them (`/etc/hosts`, then DNS), services by DNS. */
export function systemResolver(
  options: { nameServer?: { ipAddr: string; port: number } } = {},
): Resolver {
  const { nameServer } = options;
  return {
    async host(name) {
      return (await lookup(name, { all: true })).map(({ address }) => address);
    },
    async service(name, signal) {
      const records = await Deno.resolveDns(name, "SRV", { nameServer, signal });
      return records.sort((a, b) => a.priority - b.priority || b.weight - a.weight)
        .map(({ target, port }) => ({ host: target.replace(/\.$/, ""), port }));
    },
  };
}

/**
 * Endpoints of a join address: `host`, `host:port`, `[v6]:port`, `_service._proto.name` (SRV), each also with a node's
 * name and a slash before it. At most 16. Throws Error where it is none of these, or the name has no address.
 */
export async function resolveEndpoints(
  address: string,
  options: { defaultPort: number; resolver: Resolver; signal?: AbortSignal },
): Promise<Endpoint[]> {
  const { resolver, signal } = options;
  const refuse = (reason: string, cause?: unknown) =>
    new Error(`Cannot join "${address}": ${reason}`, { cause });
  const bare = address.slice(address.indexOf("/") + 1);
  const found = new Map<string, Endpoint>();
  const add = async (host: string, port: number) => {
    const literal = Endpoint.parse(host, port);
    const hosts = literal ? [host] : await resolver.host(host, signal);
    for (const text of hosts) {
      const endpoint = Endpoint.parse(text, port);
      if (endpoint !== undefined && found.size < MAX_ADDRESSES) found.set(endpoint.toString(), endpoint);
    }
  };
  if (SRV_NAME.test(bare)) {
    let reason = "the service name has no record";
    const records = await resolver.service(bare, signal).catch((cause) => {
      throw refuse(`the service name was not found: ${text(cause)}`, cause);
    });
    // One host that is gone must not hide the others.
    for (const { host, port } of records.slice(0, MAX_ADDRESSES)) {
      await add(host, port).catch((cause) => reason = text(cause));
    }
    if (found.size === 0) throw refuse(reason);
    return [...found.values()];
  }
  const parts = splitHostPort(bare, options.defaultPort);
  const isText = parts?.host.includes(":") && Endpoint.parse(parts.host, 0) === undefined;
  if (parts === undefined || isText) throw refuse("it is not host:port");
  await add(parts.host, parts.port).catch((cause) => {
    throw refuse(`the host name has no address: ${text(cause)}`, cause);
  });
  if (found.size === 0) throw refuse("the host name has no address");
  return [...found.values()];
}

function text(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
