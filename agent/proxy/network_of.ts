/** Groups of an IPv6 address that are the network's: a /64. */
const NETWORK_GROUPS = 4;

/**
 * The network that an IP address is in, as the system writes it: the /64 of an IPv6 address; an IPv4 address, mapped or not, is
 * its own. Gossip's port counts by the same; this folder does not know it.
 */
export function networkOf(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address);
  if (mapped) return mapped[1];
  if (!address.includes(":")) return address;
  const [head, tail] = address.toLowerCase().split("%")[0].split("::").map((half) => half.split(":"));
  const zeros = new Array(Math.max(0, 8 - head.length - (tail?.length ?? 0))).fill("0");
  const groups = [...head.map((group) => group || "0"), ...zeros, ...tail ?? []];
  return `${groups.slice(0, NETWORK_GROUPS).join(":")}::/64`;
}
