import { RuntimeError } from "../errors.ts";
import type { RunCommand } from "./command.ts";
import type { GuestLink } from "./chain.ts";
import type { Subnet } from "./subnet.ts";

const NFT_TIMEOUT_MS = 30_000;

/** Name of the nft table of a subnet: two agents with different subnets on one machine do not touch each other's. */
export function tableName(subnet: Subnet): string {
  return `hypercore_${subnet.cidr.replace(/[./]/g, "_")}`;
}

/**
 * The whole table, as one transaction that replaces an older one. Only packets from or to interfaces in `veths` are
 * judged, so other software's veths are left alone. What a guest sends is judged before any address translation of
 * other tables, so a port published by them does not lead around the rules.
 */
export function ruleset(subnet: Subnet, guests: readonly GuestLink[]): string {
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
  chain from_guests {
    type filter hook prerouting priority mangle; policy accept;
    iifname != @veths accept
    meta nfproto ipv6 drop
    iifname . ip saddr != @sources drop
    ct state established,related accept
    ip daddr ${subnet.cidr} drop
    ip daddr 169.254.0.0/16 drop
    fib daddr type != unicast drop
  }
  chain to_guests {
    type filter hook forward priority filter - 10; policy accept;
    oifname != @veths accept
    ct state established,related accept
    drop
  }
  chain guests_out {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${subnet.cidr} ip daddr != ${subnet.cidr} masquerade
  }
}
`;
}

/** Adds a guest to the sets, or with `delete` takes it out; both may be repeated. */
export function elementChange(subnet: Subnet, guest: GuestLink, verb: "add" | "delete"): string {
  const lines = (verb: string) => [
    `${verb} element inet ${tableName(subnet)} veths { "${guest.hostInterface}" }`,
    `${verb} element inet ${tableName(subnet)} sources { "${guest.hostInterface}" . ${guest.address} }`,
  ];
  // Deleting what is not there fails, adding what is there does not.
  return [...lines("add"), ...verb === "delete" ? lines("delete") : []].join("\n") + "\n";
}

/** A listing of the table taken apart: its rules, and who is in `sources` as `interface address`. */
export function parseListing(text: string): { rules: string; sources: Set<string> } {
  const pairs = text.matchAll(/"([^"\s]+)" \. (\d+\.\d+\.\d+\.\d+)/g);
  const rules = text.replace(/^\s*elements = \{[^}]*\}\n/gm, "");
  return { rules, sources: new Set([...pairs].map(([, face, address]) => `${face} ${address}`)) };
}

/** Keeps the nft table of one subnet in place. */
export class Isolation {
  readonly #run: RunCommand;
  readonly #subnet: Subnet;
  /** The rules as nft lists them after {@linkcode apply}. */
  #rules?: string;

  constructor(options: { subnet: Subnet; run: RunCommand }) {
    this.#run = options.run;
    this.#subnet = options.subnet;
  }

  /** Puts the table in place for exactly these guests, atomically. */
  async apply(guests: readonly GuestLink[], signal?: AbortSignal): Promise<void> {
    await this.#change(ruleset(this.#subnet, guests), signal);
    const listing = await this.#list(signal);
    if (listing === undefined) throw this.#error("list", "it is not there after it was made");
    this.#rules = parseListing(listing).rules;
  }

  /** Whether the table is as it was applied and its guests are exactly these. False before the first apply. */
  async isIntact(guests: readonly GuestLink[], signal?: AbortSignal): Promise<boolean> {
    if (this.#rules === undefined) return false;
    const listing = await this.#list(signal);
    if (listing === undefined) return false;
    const { rules, sources } = parseListing(listing);
    return rules === this.#rules && sources.size === guests.length &&
      guests.every((guest) => sources.has(`${guest.hostInterface} ${guest.address}`));
  }

  /** Takes a guest in. Throws when the table is gone. */
  add(guest: GuestLink, signal?: AbortSignal): Promise<void> {
    return this.#change(elementChange(this.#subnet, guest, "add"), signal);
  }

  /** Takes a guest out; done already when the table is gone. */
  async remove(guest: GuestLink): Promise<void> {
    try {
      await this.#change(elementChange(this.#subnet, guest, "delete"));
    } catch (error) {
      if (await this.#list() !== undefined) throw error;
    }
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

  async #list(signal?: AbortSignal): Promise<string | undefined> {
    const args = ["--stateless", "list", "table", "inet", tableName(this.#subnet)];
    const { code, stdout, stderr } = await this.#nft(args, { signal });
    if (code === 0) return stdout;
    if (/No such file or directory/.test(stderr)) return undefined;
    throw this.#error("list", stderr.trim() || `nft exits with ${code}`);
  }

  #nft(args: string[], options: { stdin?: string; signal?: AbortSignal }) {
    return this.#run({ program: "nft", args, timeoutMs: NFT_TIMEOUT_MS, ...options });
  }

  #error(action: string, reason: string): RuntimeError {
    return new RuntimeError("failed", `Cannot ${action} nft table "${tableName(this.#subnet)}": ${reason}`);
  }
}
