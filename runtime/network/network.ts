import { RuntimeError } from "../errors.ts";
import type { Log } from "../log.ts";
import {
  GUEST_INTERFACE,
  guestLink,
  LOOPBACK_PLUGIN,
  NETWORK_NAME,
  pluginChain,
  requiredPlugins,
} from "./chain.ts";
import { CNI_VERSION, type CniCall, CniDriver, type CniResult } from "./cni.ts";
import { type RunCommand, runCommand } from "./command.ts";
import { type IsolatedGuest, Isolation } from "./isolation.ts";
import { KeyedLocks } from "./locks.ts";
import { NetnsDriver } from "./netns.ts";
import { type GuestRecord, GuestRecords, isolatedGuest, readLeases } from "./records.ts";
import type { NetworkRules } from "./rules.ts";
import { parseSubnet, type Subnet } from "./subnet.ts";
import { vethSettings, type WriteSysctl, writeSysctl } from "./sysctl.ts";

/** Guests whose network is set up or taken down at the same time; more wait in line. */
export const MAX_CONCURRENT_CHANGES = 8;

/** A container's network, ready to be joined. */
export interface GuestNetwork {
  /** For the `network` namespace of the OCI spec. */
  netnsPath: string;
  /** IPv4, without prefix length. */
  address: string;
  gateway: string;
}

/** How a guest is attached. */
export interface NetworkAttachOptions {
  /** The runtime is a virtual machine. */
  tap?: boolean;
  /** What narrows its network, from its first packet on; absent means nothing. */
  rules?: NetworkRules;
  signal?: AbortSignal;
  /**
   * Told as soon as the netns and its address are there. The guest may be built from then on, but not run: it is not
   * isolated before {@linkcode Network.attach} resolves.
   */
  onAddress?: (guest: GuestNetwork) => void;
}

/** What {@linkcode GuestNetworks.collectGarbage} has removed. */
export interface NetworkGarbage {
  netns: number;
  addresses: number;
  veths: number;
  rules: number;
}

/** The networks of the guests on one node, as the engine sees them. Every method throws {@linkcode RuntimeError}. */
export interface Network {
  /**
   * Forwarding on, isolation table in place for the guests there are. Cheap when all is well: call it at start and
   * periodically. `true` when something had to be put (back) in place.
   */
  ensureHost(signal?: AbortSignal): Promise<boolean>;
  /**
   * Makes the container's network, or returns the one it has. A failure leaves nothing behind. `tap` is for runtimes
   * that are virtual machines.
   */
  attach(id: string, options?: NetworkAttachOptions): Promise<GuestNetwork>;
  /**
   * Gives a container other rules, at once; connections that are open stay. Throws `not-found` when it has no network.
   */
  setRules(id: string, rules: NetworkRules | undefined): Promise<void>;
  /** Takes the network down; the container's processes must be gone. Idempotent, at every half-made state. */
  detach(id: string): Promise<void>;
  /** The network a container has; `undefined` when it has none or only half of one. */
  get(id: string): Promise<GuestNetwork | undefined>;
  /** Asks every plugin and looks at the isolation. Throws `not-found`, or `failed` with what is wrong. */
  check(id: string, signal?: AbortSignal): Promise<void>;
  /**
   * Removes what belongs to no live container. `live` is asked after the candidates are known and must name the
   * containers in creation too; whoever is being attached or detached is left alone.
   */
  collectGarbage(live: () => Promise<ReadonlySet<string>>): Promise<NetworkGarbage>;
}

/** What {@linkcode GuestNetworks} is made of. */
export interface GuestNetworksOptions {
  /** Leases and CNI results are kept below it. */
  dataDir: string;
  /** IPv4 CIDR. */
  subnet: string;
  /** Folders with CNI plugins. */
  cniPath: readonly string[];
  log: Log;
  run?: RunCommand;
  writeSysctl?: WriteSysctl;
}

/**
 * Guest networks by CNI: a netns with `lo`, a veth whose other end is on the host (ptp, host-local), accepted by the
 * host's firewall, cut off by our own nft table. All state is on disk and in the kernel.
 */
export class GuestNetworks implements Network {
  readonly #subnet: Subnet;
  readonly #ipamDir: string;
  readonly #records: GuestRecords;
  readonly #netns: NetnsDriver;
  readonly #cni: CniDriver;
  readonly #isolation: Isolation;
  readonly #locks = new KeyedLocks({ maxConcurrent: MAX_CONCURRENT_CHANGES });
  readonly #tableLock = new KeyedLocks({ maxConcurrent: 1 });
  readonly #log: Log;
  readonly #writeSysctl: WriteSysctl;

  /** Throws `invalid` when the subnet is not one. */
  constructor(options: GuestNetworksOptions) {
    const run = options.run ?? runCommand;
    this.#subnet = parseSubnet(options.subnet);
    this.#ipamDir = `${options.dataDir}/network/ipam`;
    this.#records = new GuestRecords(`${options.dataDir}/network/guests`);
    this.#netns = new NetnsDriver({ run });
    this.#cni = new CniDriver({ cniPath: options.cniPath, run });
    this.#isolation = new Isolation({ subnet: this.#subnet, run });
    this.#log = options.log;
    this.#writeSysctl = options.writeSysctl ?? writeSysctl;
  }

  async ensureHost(signal?: AbortSignal): Promise<boolean> {
    await Deno.mkdir(this.#records.dir, { recursive: true, mode: 0o700 });
    await this.#writeSysctl("ipv4/ip_forward", "1");
    return await this.#tableLock.run("table", async () => {
      const links = await this.#records.links();
      if (await this.#isolation.isIntact(links, signal)) return false;
      await this.#isolation.apply(links, signal);
      return true;
    });
  }

  attach(id: string, options: NetworkAttachOptions = {}): Promise<GuestNetwork> {
    checkId(id);
    return this.#locks.run(id, async () => {
      const existing = await this.#existing(id);
      if (existing) {
        await this.#setRules(id, options.rules);
        return existing;
      }
      for (const type of requiredPlugins({ tap: options.tap ?? false })) await this.#cni.find(type);
      await this.#detach(id);
      try {
        const { tap = false, rules } = options;
        return await this.#attach(
          { id, tap, complete: false, ...(rules !== undefined && { rules }) },
          options,
        );
      } catch (error) {
        await this.#detach(id).catch((cause) =>
          this.#log.warn("half-made network stays until the next garbage collection", {
            id,
            error: String(cause),
          })
        );
        throw error;
      }
    });
  }

  setRules(id: string, rules: NetworkRules | undefined): Promise<void> {
    checkId(id);
    return this.#locks.run(id, () => this.#setRules(id, rules));
  }

  detach(id: string): Promise<void> {
    checkId(id);
    return this.#locks.run(id, async () => {
      await this.#detach(id);
    });
  }

  get(id: string): Promise<GuestNetwork | undefined> {
    checkId(id);
    return this.#existing(id);
  }

  async check(id: string, signal?: AbortSignal): Promise<void> {
    checkId(id);
    await this.#locks.run(id, async () => {
      const record = await this.#records.read(id);
      if (!record?.complete || !record.result || !await this.#netns.isUsable(id)) {
        throw new RuntimeError("not-found", `Cannot check network of "${id}": it has none`);
      }
      const call = this.#caller({ id, netnsPath: this.#netns.path(id), signal });
      for (const plugin of this.#chain(record)) {
        await call({ verb: "CHECK", plugin, prevResult: record.result });
      }
      const isIntact = await this.#tableLock.run(
        "table",
        async () => this.#isolation.isIntact(await this.#records.links(), signal),
      );
      if (!isIntact) {
        throw new RuntimeError(
          "failed",
          `Cannot check network of "${id}": the isolation rules are not in place`,
        );
      }
    });
  }

  async collectGarbage(live: () => Promise<ReadonlySet<string>>): Promise<NetworkGarbage> {
    const total: NetworkGarbage = { netns: 0, addresses: 0, veths: 0, rules: 0 };
    const leases = await this.#leases();
    const candidates = new Set([...await this.#records.ids(), ...leases.map((lease) => lease.id)]);
    const liveIds = await live();
    for (const id of candidates) {
      if (liveIds.has(id) || this.#locks.isBusy(id) || !ID.test(id)) continue;
      const removed = await this.#locks.run(id, () => this.#detach(id));
      for (const key of Object.keys(total) as (keyof NetworkGarbage)[]) total[key] += removed[key];
    }
    if (await this.ensureHost()) this.#log.warn("guest isolation rules were put back in place");
    return total;
  }

  async #existing(id: string): Promise<GuestNetwork | undefined> {
    const record = await this.#records.read(id);
    const link = record?.complete && record.result ? guestLink(record.result) : undefined;
    if (link === undefined || !await this.#netns.isUsable(id)) return undefined;
    return { netnsPath: this.#netns.path(id), address: link.address, gateway: link.gateway };
  }

  async #attach(record: GuestRecord, options: NetworkAttachOptions): Promise<GuestNetwork> {
    const { id } = record;
    const { signal } = options;
    await this.#records.write(record);
    const netnsPath = await this.#netns.create(id, signal);
    const call = this.#caller({ id, netnsPath, signal });
    const [first, ...rest] = this.#chain(record);
    const [, added] = await allDone([
      call({ verb: "ADD", plugin: LOOPBACK_PLUGIN, ifName: "lo" }),
      call({ verb: "ADD", plugin: first }),
    ]);
    let result = added as CniResult;
    const link = guestLink(result);
    if (link === undefined) {
      throw new RuntimeError(
        "failed",
        `Cannot attach network of "${id}": CNI plugin ${first.type} gave no address`,
      );
    }
    // Written now: DEL of the firewall needs it, also when the agent dies before the end.
    await this.#records.write({ ...record, result });
    const guest = { netnsPath, address: link.address, gateway: link.gateway };
    options.onAddress?.(guest);
    const isolated = this.#isolate({ ...link, rules: record.rules }, signal);
    const chained = (async () => {
      for (const plugin of rest) {
        result = await call({ verb: "ADD", plugin, prevResult: result }) ?? result;
      }
    })();
    await allDone([isolated, chained]);
    await this.#records.write({ ...record, result, complete: true });
    return guest;
  }

  async #setRules(id: string, rules: NetworkRules | undefined): Promise<void> {
    const record = await this.#records.read(id);
    const guest = record && isolatedGuest(record);
    if (record === undefined || guest === undefined) {
      throw new RuntimeError("not-found", `Cannot set network rules of "${id}": it has no network`);
    }
    if (JSON.stringify(record.rules) === JSON.stringify(rules)) return;
    // Together, or the table would look wrong in between.
    await this.#tableLock.run("table", async () => {
      await this.#records.write({ ...record, rules });
      await this.#addGuest({ ...guest, rules });
    });
  }

  async #isolate(guest: IsolatedGuest, signal?: AbortSignal): Promise<void> {
    for (const [name, value] of vethSettings(guest.hostInterface)) await this.#writeSysctl(name, value);
    await this.#tableLock.run("table", () => this.#addGuest(guest, signal));
  }

  /** Under the table's lock. */
  async #addGuest(guest: IsolatedGuest, signal?: AbortSignal): Promise<void> {
    try {
      await this.#isolation.add(guest, signal);
    } catch (error) {
      if (signal?.aborted) throw error;
      // Someone has flushed the rules; the new guest is among the records already.
      await this.#isolation.apply(await this.#records.links(), signal);
    }
  }

  /** In the order that leaks nothing: plugins while the netns is there, netns, isolation, record. */
  async #detach(id: string): Promise<NetworkGarbage> {
    const removed: NetworkGarbage = { netns: 0, addresses: 0, veths: 0, rules: 0 };
    const record = await this.#records.read(id);
    const leases = (await this.#leases()).filter((lease) => lease.id === id);
    const isUsable = await this.#netns.isUsable(id);
    if (!record && leases.length === 0 && !await this.#netns.exists(id)) {
      // Of an agent that died before its first record had its name.
      await this.#records.remove(id);
      return removed;
    }
    const result = record?.result ?? leaseResult(leases);
    const call = this.#caller({ id, netnsPath: isUsable ? this.#netns.path(id) : "" });
    // `lo` goes with the netns.
    for (const plugin of this.#chain({ tap: record?.tap ?? false }).reverse()) {
      await call({ verb: "DEL", plugin, prevResult: result });
    }
    removed.addresses = leases.length;
    if (await this.#netns.remove(id)) removed.netns = 1;
    const link = result && isolatedGuest({ id, tap: false, complete: false, result, rules: record?.rules });
    // Together, or the table would look wrong in between.
    await this.#tableLock.run("table", async () => {
      if (link) await this.#isolation.remove(link);
      await this.#records.remove(id);
    });
    if (link) removed.veths = 1;
    if (result) removed.rules = 1;
    return removed;
  }

  #leases() {
    return readLeases(`${this.#ipamDir}/${NETWORK_NAME}`);
  }

  #chain(options: { tap: boolean }) {
    return pluginChain({ subnet: this.#subnet, ipamDir: this.#ipamDir, tap: options.tap });
  }

  #caller(context: { id: string; netnsPath: string; signal?: AbortSignal }) {
    return (call: Pick<CniCall, "verb" | "plugin" | "prevResult"> & { ifName?: string }) =>
      this.#cni.call({
        ifName: GUEST_INTERFACE,
        ...call,
        network: NETWORK_NAME,
        containerId: context.id,
        netnsPath: context.netnsPath,
        signal: context.signal,
      });
  }
}

/** Ids become file and netns names, and CNI's container ids (specification 1.0.0, section 2). */
const ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

function checkId(id: string): void {
  if (ID.test(id)) return;
  throw new RuntimeError("invalid", `Cannot use network id "${id.slice(0, 64)}": it is not a plain name`);
}

/** What the firewall plugin needs to know to remove its rules when only the lease is left. */
function leaseResult(leases: readonly { address: string }[]): CniResult | undefined {
  if (leases.length === 0) return undefined;
  return { cniVersion: CNI_VERSION, ips: leases.map(({ address }) => ({ address: `${address}/32` })) };
}

/** Like Promise.all, but throws only when all have ended: nothing runs on behind the clean-up's back. */
async function allDone<T extends readonly unknown[]>(work: { [K in keyof T]: Promise<T[K]> }): Promise<T> {
  const results = await Promise.allSettled(work);
  const failed = results.find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
  return results.map((result) => (result as PromiseFulfilledResult<unknown>).value) as unknown as T;
}
