/** The networks of the guests: netns, CNI chain, isolation from the host and from each other. */
export {
  type GuestNetwork,
  GuestNetworks,
  type GuestNetworksOptions,
  type Network,
  type NetworkAttachOptions,
  type NetworkGarbage,
} from "./network.ts";
export type { EgressRule, NetworkRules, PortRange } from "./rules.ts";
export { parseSubnet, type Subnet } from "./subnet.ts";
