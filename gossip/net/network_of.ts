import { formatAddress, parseAddress } from "../endpoint.ts";

/** Bytes of an IPv6 address that are the network's: a /64, within which a host takes as many addresses as it likes. */
const NETWORK_BYTES = 8;

/**
 * Who is behind an IP address, as text, by which connections are counted: the address, IPv4-mapped ones as IPv4 and without a
 * zone, and its network, which is the /64 of an IPv6 address and an IPv4 address itself.
 */
export function networkOf(address: string): { address: string; network: string } {
  const bytes = parseAddress(address.split("%")[0]);
  if (bytes === undefined) return { address, network: address };
  const plain = formatAddress(bytes);
  if (!plain.includes(":")) return { address: plain, network: plain };
  return { address: plain, network: `${formatAddress(bytes.fill(0, NETWORK_BYTES))}/64` };
}
