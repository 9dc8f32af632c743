import type { CniPlugin, CniResult } from "./cni.ts";
import type { Subnet } from "./subnet.ts";

/** Name of the guests' interface inside their netns. */
export const GUEST_INTERFACE = "eth0";

/** Name of the CNI network; host-local keeps its leases in a folder of this name. */
export const NETWORK_NAME = "hypercore";

/** Brings `lo` up; it has no part in the other plugins' results. */
export const LOOPBACK_PLUGIN: CniPlugin = { type: "loopback" };

/** What decides which plugins a guest gets. */
export interface ChainOptions {
  subnet: Subnet;
  /** Where host-local keeps its leases. */
  ipamDir: string;
  /** The runtime is a VM: its tap device takes over from the veth. */
  tap: boolean;
}

/**
 * The plugins behind `lo`, in ADD order. Masquerading is not ptp's: one rule of our own table does it for the whole
 * subnet, which is faster and cannot leak a chain when the netns goes first.
 */
export function pluginChain(options: ChainOptions): CniPlugin[] {
  const chain: CniPlugin[] = [
    {
      type: "ptp",
      ipMasq: false,
      ipam: {
        type: "host-local",
        ranges: [[{ subnet: options.subnet.cidr, gateway: options.subnet.gateway }]],
        routes: [{ dst: "0.0.0.0/0" }],
        dataDir: options.ipamDir,
      },
    },
    // Lets guests through where other software has set the FORWARD policy to DROP.
    { type: "firewall", backend: "iptables" },
  ];
  if (options.tap) chain.push({ type: "tc-redirect-tap" });
  return chain;
}

/** Programs that must be there before anything is made: the chain's plugins and the IPAM plugin. */
export function requiredPlugins(options: { tap: boolean }): string[] {
  const types = ["loopback", "ptp", "host-local", "firewall"];
  return options.tap ? [...types, "tc-redirect-tap"] : types;
}

/** Where a guest is reached: its address and the host's end of its veth. */
export interface GuestLink {
  address: string;
  gateway: string;
  hostInterface: string;
}

/** The facts of an ADD result that matter; `undefined` when it lacks one of them or one is not well formed. */
export function guestLink(result: CniResult): GuestLink | undefined {
  const ip = result.ips?.find((ip) => IPV4_CIDR.test(ip.address));
  const host = result.interfaces?.find((face) => !face.sandbox);
  if (ip?.gateway === undefined || host === undefined || !INTERFACE_NAME.test(host.name)) return undefined;
  return { address: ip.address.split("/")[0], gateway: ip.gateway, hostInterface: host.name };
}

const IPV4_CIDR = /^\d{1,3}(\.\d{1,3}){3}\/\d{1,2}$/;
/** Kernel limit is 15 bytes; the characters are those that need no quoting anywhere. */
const INTERFACE_NAME = /^[A-Za-z0-9_.-]{1,15}$/;
