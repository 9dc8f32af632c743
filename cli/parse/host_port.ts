import type { HostPort } from "../../agent/config.ts";

/** Reads a TCP or UDP port, 1 to 65535. Throws an Error that says why not. */
export function parsePort(text: string): number {
  const port = /^[0-9]{1,5}$/.test(text) ? Number(text) : NaN;
  if (!(port >= 1 && port <= 65_535)) throw new Error(`"${text}" is not a port (1 to 65535)`);
  return port;
}

/**
 * Reads `host:port`, `[v6]:port` or `:port` (all addresses, so host `0.0.0.0`). Throws an Error that says why not.
 *
 * @example
 * ```ts
 * import { parseHostPort } from "./host_port.ts";
 * const { host, port } = parseHostPort("[::1]:8000");
 * if (host !== "::1" || port !== 8000) throw new Error("unexpected");
 * ```
 */
export function parseHostPort(text: string): HostPort {
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*)):([^:]*)$/.exec(text);
  if (match === null) throw new Error(`"${text}" is not host:port (an IPv6 host stands in brackets)`);
  const port = parsePort(match[3]);
  if (match[1] !== undefined) {
    if (!isIpv6(match[1])) throw new Error(`"${match[1]}" is not an IPv6 address`);
    return { host: match[1], port };
  }
  const host = match[2] === "" ? "0.0.0.0" : match[2];
  if (!isIpv4(host) && !isHostName(host)) throw new Error(`"${host}" is not a host name or address`);
  return { host, port };
}

/** Writes an address as {@linkcode parseHostPort} reads it. */
export function formatHostPort({ host, port }: HostPort): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Whether the host names this machine only. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIpv4(host) && host.startsWith("127."));
}

/** Dotted quad, no leading zeros. */
export function isIpv4(text: string): boolean {
  const parts = text.split(".");
  return parts.length === 4 &&
    parts.every((part) => /^(0|[1-9][0-9]{0,2})$/.test(part) && Number(part) <= 255);
}

/** RFC 4291 text form, without zone. */
export function isIpv6(text: string): boolean {
  return /^[0-9a-fA-F:.]{2,45}$/.test(text) && text.includes(":") && URL.canParse(`http://[${text}]/`);
}

/** RFC 1123 host name; one that looks like a broken IPv4 address is none. */
export function isHostName(text: string): boolean {
  if (text.length > 253 || /^[0-9.]+$/.test(text)) return false;
  return text.split(".").every((label) => /^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$/.test(label));
}
