/** Where a resolver on the host's loopback (systemd-resolved) keeps the real servers. */
export const UPSTREAM_RESOLV_CONF = "/run/systemd/resolve/resolv.conf";

/** Used when the host's configuration names no server a guest can reach, as Docker does. */
export const FALLBACK_NAMESERVERS: readonly string[] = ["8.8.8.8", "8.8.4.4"];

/** Most servers the C libraries look at. */
export const MAX_NAMESERVERS = 3;

/**
 * The resolv.conf a guest gets, from candidates in order (the host's own, then {@linkcode UPSTREAM_RESOLV_CONF}): the
 * first that names a server outside the host. Servers on loopback or link-local addresses are the host's own business
 * and are left out, so are IPv6 ones: guests have IPv4 only.
 */
export function guestResolvConf(candidates: readonly string[]): string {
  const parsed = candidates.map(parse);
  const chosen = parsed.find((conf) => conf.nameservers.length > 0);
  const { search, options } = chosen ?? parsed[0] ?? { search: [], options: [] };
  const nameservers = chosen?.nameservers ?? FALLBACK_NAMESERVERS;
  return [
    ...nameservers.slice(0, MAX_NAMESERVERS).map((server) => `nameserver ${server}`),
    ...search.length > 0 ? [`search ${search.join(" ")}`] : [],
    ...options.length > 0 ? [`options ${options.join(" ")}`] : [],
  ].join("\n") + "\n";
}

function parse(text: string): { nameservers: string[]; search: string[]; options: string[] } {
  const result = { nameservers: [] as string[], search: [] as string[], options: [] as string[] };
  for (const line of text.split("\n")) {
    const [keyword, ...values] = line.trim().split(/\s+/);
    if (keyword === "nameserver" && values[0] && isReachable(values[0])) result.nameservers.push(values[0]);
    // The last search or domain line counts; "." means none.
    if (keyword === "search" || keyword === "domain") result.search = values.filter((value) => value !== ".");
    if (keyword === "options") result.options.push(...values);
  }
  return result;
}

function isReachable(server: string): boolean {
  return /^\d{1,3}(\.\d{1,3}){3}$/.test(server) && !/^(127|0)\./.test(server) &&
    !server.startsWith("169.254.");
}
