import type { BeaconConfig } from "./beacon/node_beacon.ts";

/** Where something listens or is reached. IPv6 hosts carry no brackets. */
export interface HostPort {
  host: string;
  port: number;
}

/** Everything one agent is told, already parsed and checked (the CLI does that; see cli/commands/agent.ts). */
export interface AgentConfig {
  nodeName: string;
  dataDir: string;
  stateDir: string;
  /** containerd is expected here; when nothing answers, the agent starts one of its own. */
  containerdSocket: string;
  containerdNamespace: string;
  /** Connect, gRPC and gRPC-Web. */
  grpcBindAddr: HostPort;
  /** Plain HTTP API of the original, health and metrics. */
  httpBindAddr: HostPort;
  /** Certificate for both APIs; required off loopback unless `insecure`. */
  apiTls?: TlsFiles;
  /** Workloads answer at `<id>.<baseUrl>`. */
  baseUrl: string;
  /** Certificate of the workload proxy; absent means plain HTTP. */
  proxyTls?: TlsFiles;
  /** Addresses the proxy binds its host ports on. */
  proxyBindHosts: readonly string[];
  /** Proxy threads; 0 means one per CPU. */
  proxyWorkers: number;
  /** No token on the API, no key on gossip. */
  insecure: boolean;
  /** API bearer token; absent means the one in the data dir, made at first start. */
  token?: string;
  /** File with the node's Ed25519 identity, made at first start; absent means the one in the data dir. */
  identityFile?: string;
  cniPath: readonly string[];
  /** Guest subnet, IPv4 CIDR. */
  subnet: string;
  /** Time between two proofs of a running workload, milliseconds. */
  proofIntervalMs: number;
  /** Registry host to the base URLs tried first. */
  registryMirrors: Readonly<Record<string, readonly string[]>>;
  /** Registry hosts reached by plain HTTP besides loopback. */
  insecureRegistries: readonly string[];
  /** Upper bound of the vCPUs handed out; absent means max(CPUs, 225). */
  vcpuLimit?: number;
  /** Size at which a workload's log is rotated, in bytes, and how many rotated files stay. */
  logMaxBytes: number;
  logMaxFiles: number;
  cluster: ClusterConfig;
  /** What the operator says of this node in its beacon. */
  beacon?: BeaconConfig;
  /** Policy file of the cluster; absent means anything goes. */
  clusterPolicyFile?: string;
  /** Folder with the policies that spawns may name; absent means `policies` in the data dir. */
  policyDir?: string;
  logLevel: "debug" | "info" | "warn" | "error";
  logFormat: "text" | "json";
}

/** How a node takes part in a cluster. */
export interface ClusterConfig {
  /** Gossip and calls between nodes, UDP and TCP. */
  bind: HostPort;
  /** What others are told; absent means the bind address, or on a wildcard the first private one. */
  advertise?: HostPort;
  /** Addresses of members, `host[:port]` or SRV names. */
  joins: readonly string[];
  /** Gossip key given by the operator, 16, 24 or 32 bytes. */
  key?: Uint8Array;
  profile: "hypercore" | "lan" | "wan" | "local";
  /** The operator's tags. */
  tags: Readonly<Record<string, string>>;
  /** Reschedule what ran on nodes that failed; `majority`: only where most of the last known members are seen. */
  respawn: "off" | "always" | "majority";
  /** Believe no state that is not signed. */
  requireSigned: boolean;
}

export interface TlsFiles {
  certFile: string;
  keyFile: string;
}
