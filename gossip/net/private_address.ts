/** An address of an interface, as `Deno.networkInterfaces` gives it. */
export interface InterfaceAddress {
  name: string;
  address: string;
}

/** Columns of `/proc/net/route` that matter. */
const COLUMN = { name: 0, destination: 1, flags: 3, metric: 6 } as const;
const FLAG_UP = 1;

/**
 * The address that others reach this machine at, where it is not told: that of the interface with the default route,
 * a private IPv4 one first, as Serf chooses. Bridges of containers have private addresses too, but no default route.
 * Undefined without any address but loopback.
 */
export function privateAddress(): string | undefined {
  const addresses = Deno.networkInterfaces();
  let routes = "";
  try {
    routes = Deno.readTextFileSync("/proc/net/route");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotCapable)) throw error;
  }
  return chooseAddress(addresses, defaultInterface(routes));
}

/** Name of the interface with the best default route in the text of `/proc/net/route`. */
export function defaultInterface(routes: string): string | undefined {
  let best: { name: string; metric: number } | undefined;
  for (const line of routes.split("\n").slice(1)) {
    const columns = line.trim().split(/\s+/);
    const isDefault = columns[COLUMN.destination] === "00000000" &&
      (parseInt(columns[COLUMN.flags], 16) & FLAG_UP) !== 0;
    const metric = Number(columns[COLUMN.metric]);
    if (isDefault && (best === undefined || metric < best.metric)) {
      best = { name: columns[COLUMN.name], metric };
    }
  }
  return best?.name;
}

/** The address to tell others, given the interface that leads out. */
export function chooseAddress(
  addresses: readonly InterfaceAddress[],
  outward: string | undefined,
): string | undefined {
  const usable = addresses.filter(({ address }) =>
    !address.startsWith("127.") && address !== "::1" && !address.startsWith("fe80:") &&
    !address.startsWith("169.254.")
  );
  const isPrivate = ({ address }: InterfaceAddress) =>
    /^(10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.|100\.(6[4-9]|[7-9]\d|1[01]\d|12[0-7])\.)/.test(address);
  const isV4 = ({ address }: InterfaceAddress) => !address.includes(":");
  const out = usable.filter(({ name }) => name === outward);
  const chosen = out.find(isPrivate) ?? out.find(isV4) ?? usable.find(isPrivate) ?? usable.find(isV4) ??
    out[0] ??
    usable[0];
  return chosen?.address;
}
