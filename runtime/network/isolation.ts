import { RuntimeError } from "../errors.ts";
import type { RunCommand } from "./command.ts";
import type { GuestLink } from "./chain.ts";
import {
  addChains,
  chainBlocks,
  chainNames,
  guestChains,
  mapElements,
  parseChains,
  removeChains,
  withoutChains,
} from "./guest_rules.ts";
import type { NetworkRules } from "./rules.ts";
import type { Subnet } from "./subnet.ts";

const NFT_TIMEOUT_MS = 30_000;
/** Most bytes of a listing: thousands of guests, each with rules of its own. */
export const MAX_LISTING_BYTES = 64 << 20;

/** A guest as isolation sees it. */
export interface IsolatedGuest extends GuestLink {
  /** What narrows its network further; absent means nothing. */
  rules?: NetworkRules;
}

/** Name of the nft table of a subnet: two agents with different subnets on one machine do not touch each other's. */
export function tableName(subnet: Subnet): string {
  return `hypercore_${subnet.cidr.replace(/[./]/g, "_")}`;
}

/**
 * The whole table, as one transaction that replaces an older one. Only packets from or to interfaces in `veths` are
 * judged, so other software's veths are left alone. What a guest sends is judged before any address translation of
 * other tables, so a port published by them does not lead around the rules.
 */
export function ruleset(subnet: Subnet, guests: readonly IsolatedGuest[]): string {
  const table = `inet ${tableName(subnet)}`;
  const veths = guests.map((guest) => `"${guest.hostInterface}"`);
  const sources = guests.map((guest) => `"${guest.hostInterface}" . ${guest.address}`);
  const elements = (items: string[]) => items.length > 0 ? `elements = { ${items.join(", ")} }` : "";
  return `table ${table}
delete table ${table}
table ${table} {
  set veths {
    type ifname
    ${elements(veths)}
  }
  set sources {
    type ifname . ipv4_addr
    ${elements(sources)}
  }
  map egress {
    type ipv4_addr : verdict
    ${elements(mapElements("egress", guests))}
  }
  map ingress {
    type ipv4_addr : verdict
    ${elements(mapElements("ingress", guests))}
  }
${chainBlocks(guests)}  chain from_guests {
    type filter hook prerouting priority mangle; policy accept;
    iifname != @veths accept
    meta nfproto ipv6 drop
    iifname . ip saddr != @sources drop
    ct state established,related accept
    ip daddr ${subnet.cidr} drop
    ip daddr 169.254.0.0/16 drop
    fib daddr type != unicast drop
    ip saddr vmap @egress
  }
  chain to_guests {
    type filter hook forward priority filter - 10; policy accept;
    oifname != @veths accept
    ct state established,related accept
    drop
  }
  chain host_to_guests {
    type filter hook output priority filter - 10; policy accept;
    oifname != @veths accept
    ct state established,related accept
    ip daddr vmap @ingress
  }
  chain guests_out {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${subnet.cidr} ip daddr != ${subnet.cidr} masquerade
  }
}
`;
}

/**
 * Takes a guest in with its rules, or with `delete` takes it out; both may be repeated. `hadRules` when its address may
 * have chains: taking chains away takes the kernel ten times as long as all else.
 */
export function elementChange(
  subnet: Subnet,
  guest: IsolatedGuest,
  options: { verb: "add" | "delete"; hadRules: boolean },
): string {
  const { verb, hadRules } = options;
  const table = `inet ${tableName(subnet)}`;
  const lines = (verb: string) => [
    `${verb} element ${table} veths { "${guest.hostInterface}" }`,
    `${verb} element ${table} sources { "${guest.hostInterface}" . ${guest.address} }`,
  ];
  // Deleting what is not there fails, adding what is there does not. Its chains come before itself: it is never without.
  return [
    ...hadRules ? removeChains(table, guest.address) : [],
    ...verb === "add" ? addChains(table, guest) : [],
    ...lines("add"),
    ...verb === "delete" ? lines("delete") : [],
  ].join("\n") + "\n";
}

/** A listing of the table taken apart. */
export interface Listing {
  /** What is there for all guests. */
  rules: string;
  /** Who is in `sources`, as `interface address`. */
  sources: Set<string>;
  /** Chains of single guests by name. */
  chains: Map<string, string>;
  /** What leads to them, as `address chain`. */
  jumps: Set<string>;
}

/** Takes a listing of the table apart. */
export function parseListing(text: string): Listing {
  const pairs = text.matchAll(/"([^"\s]+)" \. (\d+\.\d+\.\d+\.\d+)/g);
  const rules = withoutChains(text).replace(/^\s*elements = \{[^}]*\}\n/gm, "");
  return {
    rules,
    sources: new Set([...pairs].map(([, face, address]) => `${face} ${address}`)),
    ...parseChains(text),
  };
}

/** Stands for a chain that nobody has seen listed: no listing is like it. */
const UNKNOWN_BODY = "?";

/** Keeps the nft table of one subnet in place. */
export class Isolation {
  readonly #run: RunCommand;
  readonly #subnet: Subnet;
  /** The rules as nft lists them after {@linkcode apply}. */
  #rules?: string;
  /** Chains of single guests, as nft lists them after they were made. */
  #chains = new Map<string, string>();

  constructor(options: { subnet: Subnet; run: RunCommand }) {
    this.#run = options.run;
    this.#subnet = options.subnet;
  }

  /** Puts the table in place for exactly these guests, atomically. */
  async apply(guests: readonly IsolatedGuest[], signal?: AbortSignal): Promise<void> {
    await this.#change(ruleset(this.#subnet, guests), signal);
    const { rules, chains } = await this.#mustList(signal);
    this.#rules = rules;
    this.#chains = chains;
  }

  /** Whether the table is as it was applied and its guests are exactly these. False before the first apply. */
  async isIntact(guests: readonly IsolatedGuest[], signal?: AbortSignal): Promise<boolean> {
    if (this.#rules === undefined) return false;
    const listing = await this.#list(signal);
    if (listing === undefined) return false;
    const { rules, sources, chains, jumps } = parseListing(listing);
    const expected = guests.flatMap(({ address, rules }) =>
      guestChains(address, rules).map(({ name }) => ({ name, jump: `${address} ${name}` }))
    );
    return rules === this.#rules && sources.size === guests.length &&
      guests.every((guest) => sources.has(`${guest.hostInterface} ${guest.address}`)) &&
      chains.size === expected.length && jumps.size === expected.length &&
      expected.every(({ name, jump }) =>
        jumps.has(jump) && chains.has(name) && chains.get(name) === this.#chains.get(name)
      );
  }

  /** Takes a guest in, or gives one that is in other rules. Throws when the table is gone. */
  async add(guest: IsolatedGuest, signal?: AbortSignal): Promise<void> {
    const hadRules = this.#mayHaveRules(guest.address);
    const names = guestChains(guest.address, guest.rules).map(({ name }) => name);
    // Whatever becomes of this, they may be there from now on.
    for (const name of names) this.#chains.set(name, UNKNOWN_BODY);
    await this.#change(elementChange(this.#subnet, guest, { verb: "add", hadRules }), signal);
    for (const name of chainNames(guest.address)) if (!names.includes(name)) this.#chains.delete(name);
    for (const name of names) this.#chains.set(name, await this.#chainBody(name, signal));
  }

  /** Takes a guest out; done already when the table is gone. */
  async remove(guest: IsolatedGuest): Promise<void> {
    const hadRules = guest.rules !== undefined || this.#mayHaveRules(guest.address);
    try {
      await this.#change(elementChange(this.#subnet, guest, { verb: "delete", hadRules }));
    } catch (error) {
      if (await this.#list() !== undefined) throw error;
    }
    for (const name of chainNames(guest.address)) this.#chains.delete(name);
  }

  /** Before the first {@linkcode apply} nobody knows what an earlier agent left. */
  #mayHaveRules(address: string): boolean {
    return this.#rules === undefined || chainNames(address).some((name) => this.#chains.has(name));
  }

  /** Removes the table. */
  async drop(): Promise<void> {
    const table = `inet ${tableName(this.#subnet)}`;
    await this.#change(`table ${table}\ndelete table ${table}\n`);
    this.#rules = undefined;
  }

  async #change(script: string, signal?: AbortSignal): Promise<void> {
    const { code, stderr } = await this.#nft(["-f", "-"], { stdin: script, signal });
    if (code !== 0) throw this.#error("change", stderr.trim() || `nft exits with ${code}`);
  }

  /** A chain as nft lists it; not the whole table, which other guests may have made long. */
  async #chainBody(name: string, signal?: AbortSignal): Promise<string> {
    const listing = await this.#listPart(["chain", "inet", tableName(this.#subnet), name], signal);
    return listing === undefined ? UNKNOWN_BODY : parseListing(listing).chains.get(name) ?? UNKNOWN_BODY;
  }

  async #mustList(signal?: AbortSignal): Promise<Listing> {
    const listing = await this.#list(signal);
    if (listing === undefined) throw this.#error("list", "it is not there after it was made");
    return parseListing(listing);
  }

  #list(signal?: AbortSignal): Promise<string | undefined> {
    return this.#listPart(["table", "inet", tableName(this.#subnet)], signal);
  }

  async #listPart(what: readonly string[], signal?: AbortSignal): Promise<string | undefined> {
    const args = ["--stateless", "list", ...what];
    const { code, stdout, stderr } = await this.#nft(args, { signal });
    if (code === 0) return stdout;
    if (/No such file or directory/.test(stderr)) return undefined;
    throw this.#error("list", stderr.trim() || `nft exits with ${code}`);
  }

  #nft(args: string[], options: { stdin?: string; signal?: AbortSignal }) {
    return this.#run({
      program: "nft",
      args,
      timeoutMs: NFT_TIMEOUT_MS,
      maxOutputBytes: MAX_LISTING_BYTES,
      ...options,
    });
  }

  #error(action: string, reason: string): RuntimeError {
    return new RuntimeError("failed", `Cannot ${action} nft table "${tableName(this.#subnet)}": ${reason}`);
  }
}
