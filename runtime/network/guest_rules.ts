import type { EgressRule, NetworkRules, PortRange } from "./rules.ts";

/** Names of the maps, from a guest's address to the chain that judges it: what it sends, and what the host sends it. */
export const RULE_MAPS = ["egress", "ingress"] as const;

/** A chain of one guest. */
interface GuestChain {
  map: (typeof RULE_MAPS)[number];
  name: string;
  /** One statement each, in nft's language. */
  rules: string[];
}

/** The chains of a guest with these rules; none when it may do everything. */
export function guestChains(address: string, rules: NetworkRules | undefined): GuestChain[] {
  const chains: GuestChain[] = [];
  const add = (map: GuestChain["map"], accepted: string[]) => {
    chains.push({ map, name: chainName(map, address), rules: [...accepted, "counter drop"] });
  };
  if (rules?.egress !== undefined) add("egress", rules.egress.map(egressText));
  if (rules?.ingressPorts !== undefined) {
    const { ingressPorts } = rules;
    add(
      "ingress",
      ingressPorts.length === 0 ? [] : [`meta l4proto { tcp, udp } th dport ${portSet(ingressPorts)} accept`],
    );
  }
  return chains;
}

/** The chains as part of a table's definition. */
export function chainBlocks(guests: readonly { address: string; rules?: NetworkRules }[]): string {
  return guests.flatMap(({ address, rules }) => guestChains(address, rules)).map(({ name, rules }) =>
    `  chain ${name} {\n${rules.map((rule) => `    ${rule}\n`).join("")}  }\n`
  ).join("");
}

/** The elements of one of {@linkcode RULE_MAPS}, as part of a table's definition. */
export function mapElements(
  map: GuestChain["map"],
  guests: readonly { address: string; rules?: NetworkRules }[],
): string[] {
  return guests.flatMap(({ address, rules }) =>
    guestChains(address, rules).filter((chain) => chain.map === map).map(({ name }) =>
      `${address} : goto ${name}`
    )
  );
}

/** Commands that take away the chains of an address, whether there are any or not. */
export function removeChains(table: string, address: string): string[] {
  return RULE_MAPS.flatMap((map) => {
    const name = chainName(map, address);
    const element = `element ${table} ${map} { ${address} : goto ${name} }`;
    // Deleting what is not there fails, adding what is there does not.
    return [
      `add chain ${table} ${name}`,
      `add ${element}`,
      `delete ${element}`,
      `flush chain ${table} ${name}`,
      `delete chain ${table} ${name}`,
    ];
  });
}

/** Commands that put the chains of a guest in place, where there are none. */
export function addChains(table: string, guest: { address: string; rules?: NetworkRules }): string[] {
  return guestChains(guest.address, guest.rules).flatMap(({ map, name, rules }) => [
    `add chain ${table} ${name}`,
    ...rules.map((rule) => `add rule ${table} ${name} ${rule}`),
    `add element ${table} ${map} { ${guest.address} : goto ${name} }`,
  ]);
}

/** Names that an address's chains have, if it has any. */
export function chainNames(address: string): string[] {
  return RULE_MAPS.map((map) => chainName(map, address));
}

/** The guests' chains in a listing, by name, and the elements of the maps that lead to them. */
export function parseChains(listing: string): { chains: Map<string, string>; jumps: Set<string> } {
  const chains = [...listing.matchAll(CHAIN)].map(([, name, body]) => [name, body] as const);
  const jumps = [...listing.matchAll(/(\d+\.\d+\.\d+\.\d+) : goto (\w+)/g)].map(([, address, name]) =>
    `${address} ${name}`
  );
  return { chains: new Map(chains), jumps: new Set(jumps) };
}

/** A listing without the guests' chains, and without empty lines, which depend on where they stood. */
export function withoutChains(listing: string): string {
  return listing.replace(CHAIN, "").replace(/\n{2,}/g, "\n");
}

/** A guest's chain in a listing; its last line stands on the level of its first. */
const CHAIN = /^\tchain ((?:egress|ingress)_\d+_\d+_\d+_\d+) \{\n((?:\t\t.*\n)*)\t\}\n/gm;

function chainName(map: GuestChain["map"], address: string): string {
  return `${map}_${address.replaceAll(".", "_")}`;
}

function egressText({ cidr, protocol, ports }: EgressRule): string {
  const to = cidr === "0.0.0.0/0" ? "" : `ip daddr ${cidr} `;
  if (protocol === "any") return `${to}accept`;
  if (ports === undefined || protocol === "icmp") return `${to}meta l4proto ${protocol} accept`;
  return `${to}${protocol} dport ${portSet(ports)} accept`;
}

function portSet(ports: readonly PortRange[]): string {
  return `{ ${ports.map(({ from, to }) => from === to ? `${from}` : `${from}-${to}`).join(", ")} }`;
}
