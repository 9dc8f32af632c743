import { RuntimeError } from "../errors.ts";

/** Longest prefix a guest subnet may have: network, gateway and broadcast address leave 13 guests. */
export const MAX_SUBNET_PREFIX = 28;

/** Shortest prefix a guest subnet may have. */
export const MIN_SUBNET_PREFIX = 8;

/** The IPv4 network the guests of one node live in. */
export interface Subnet {
  /** Canonical `a.b.c.d/n`. */
  cidr: string;
  /** The first address, which the host's end of every veth carries. */
  gateway: string;
}

/**
 * Parses a guest subnet. Throws `invalid`.
 *
 * @example
 * ```ts
 * import { parseSubnet } from "./subnet.ts";
 * parseSubnet("192.168.127.0/24").gateway; // "192.168.127.1"
 * ```
 */
export function parseSubnet(text: string): Subnet {
  const refuse = (reason: string): never => {
    throw new RuntimeError("invalid", `Cannot use subnet "${text.slice(0, 64)}": ${reason}`);
  };
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text);
  if (match === null) return refuse("it is not an IPv4 network such as 192.168.127.0/24");
  const [a, b, c, d, prefix] = match.slice(1).map(Number);
  if ([a, b, c, d].some((part) => part > 255)) refuse("a part of the address is over 255");
  if (prefix < MIN_SUBNET_PREFIX || prefix > MAX_SUBNET_PREFIX) {
    refuse(`its prefix is not between /${MIN_SUBNET_PREFIX} and /${MAX_SUBNET_PREFIX}`);
  }
  const address = ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
  const network = (address & (0xffffffff << (32 - prefix))) >>> 0;
  if (network !== address) refuse(`it has host bits; did you mean ${dotted(network)}/${prefix}?`);
  if (a === 0 || a === 127 || a >= 224 || (a === 169 && b === 254)) {
    refuse("it is not a network hosts may have");
  }
  return { cidr: `${dotted(network)}/${prefix}`, gateway: dotted(network + 1) };
}

function dotted(address: number): string {
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join(".");
}
