/** Ports `from` to `to`, both included. */
export interface PortRange {
  from: number;
  to: number;
}

/** One way out of a guest. */
export interface EgressRule {
  /** IPv4 network in canonical form. */
  cidr: string;
  protocol: "tcp" | "udp" | "icmp" | "any";
  /** For tcp and udp; absent means every port. */
  ports?: readonly PortRange[];
}

/** What a guest may do on the network besides what isolation forbids to all of them. */
export interface NetworkRules {
  /** Connections it may open; absent means all, empty none. */
  egress?: readonly EgressRule[];
  /** Its ports that may be reached; absent means all, empty none. */
  ingressPorts?: readonly PortRange[];
}

/** Egress rules, or ingress port ranges, that one guest may have. */
export const MAX_GUEST_RULES = 256;

/** An IPv4 network as numbers. */
export interface Cidr {
  /** The network's address. */
  base: number;
  /** Length of the prefix in bits, 0 to 32. */
  prefix: number;
}

/**
 * Reads `a.b.c.d/n`, or a single address; the reason in words when it is neither.
 *
 * @example
 * ```ts
 * import { formatCidr, parseCidr } from "./rules.ts";
 * console.assert(formatCidr(parseCidr("10.1.2.3") as { base: number; prefix: number }) === "10.1.2.3/32");
 * ```
 */
export function parseCidr(text: string): Cidr | { reason: string } {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:\/(\d{1,2}))?$/.exec(text);
  if (match === null) return { reason: "it is not an IPv4 network such as 10.0.0.0/8" };
  const parts = match.slice(1, 5).map(Number);
  const prefix = match[5] === undefined ? 32 : Number(match[5]);
  if (parts.some((part) => part > 255)) return { reason: "a part of the address is over 255" };
  if (prefix > 32) return { reason: "its prefix is over /32" };
  const address = parts.reduce((sum, part) => sum * 256 + part, 0);
  const base = networkOf(address, prefix);
  if (base !== address) return { reason: `it has host bits; did you mean ${formatCidr({ base, prefix })}?` };
  return { base, prefix };
}

/** The canonical text of a network. */
export function formatCidr({ base, prefix }: Cidr): string {
  return `${[24, 16, 8, 0].map((shift) => (base >>> shift) & 255).join(".")}/${prefix}`;
}

/** What both networks hold: one of them, or nothing. */
export function intersectCidr(a: Cidr, b: Cidr): Cidr | undefined {
  const [wide, narrow] = a.prefix <= b.prefix ? [a, b] : [b, a];
  return networkOf(narrow.base, wide.prefix) === wide.base ? narrow : undefined;
}

/** The ports in both lists, merged and in order. */
export function intersectPorts(a: readonly PortRange[], b: readonly PortRange[]): PortRange[] {
  const both = a.flatMap((x) =>
    b.map((y) => ({ from: Math.max(x.from, y.from), to: Math.min(x.to, y.to) }))
      .filter((range) => range.from <= range.to)
  );
  return mergePorts(both);
}

/** The same ports in the fewest ranges, in order. */
export function mergePorts(ranges: readonly PortRange[]): PortRange[] {
  const merged: PortRange[] = [];
  for (const range of [...ranges].sort((a, b) => a.from - b.from)) {
    const last = merged.at(-1);
    if (last !== undefined && range.from <= last.to + 1) last.to = Math.max(last.to, range.to);
    else merged.push({ ...range });
  }
  return merged;
}

/** Whether a port is in one of the ranges. */
export function includesPort(ranges: readonly PortRange[], port: number): boolean {
  return ranges.some((range) => port >= range.from && port <= range.to);
}

/** `443`, or `8000-8100`. */
export function formatPorts(ranges: readonly PortRange[]): string {
  return ranges.map(({ from, to }) => from === to ? `${from}` : `${from}-${to}`).join(", ");
}

function networkOf(address: number, prefix: number): number {
  return prefix === 0 ? 0 : (address & (0xffffffff << (32 - prefix))) >>> 0;
}
