import { TAG } from "../agent/cluster/tags.ts";
import type { AgentConfig, ClusterConfig } from "../agent/config.ts";
import { MAX_JOIN_ADDRESSES, parseGossipKey, parseJoin } from "../agent/membership/join_address.ts";
import type { AgentOptions } from "./agent_options.ts";
import { UsageError } from "./exit.ts";
import { isLoopback } from "./parse/host_port.ts";

/** Where CNI plugins are looked for: Debian's place, then the plugins' own. */
const DEFAULT_CNI_PATH = ["/usr/lib/cni", "/opt/cni/bin"];

/** Checks what single flags cannot, and makes the agent's configuration. Throws {@linkcode UsageError}. */
export function agentConfig(
  address: string | undefined,
  options: AgentOptions,
  hostName: string,
  readTextFile: (path: string) => string,
): AgentConfig {
  for (const flag of ["dataDir", "stateDir", "containerdSocket", "identityKey"] as const) {
    const path = options[flag];
    if (path !== undefined && !path.startsWith("/")) {
      throw new UsageError(`${flagOf(flag)}: "${path}" is not an absolute path`);
    }
  }
  if (!/^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,74}[a-zA-Z0-9])?$/.test(options.containerdNs)) {
    throw new UsageError(`--containerd-ns: "${options.containerdNs}" is not a containerd namespace`);
  }
  const apiTls = tlsFiles("--api-tls", options.apiTlsCert, options.apiTlsKey);
  for (
    const [flag, { host, port }] of [["--grpc-bind-addr", options.grpcBindAddr], [
      "--http-bind-addr",
      options.httpBindAddr,
    ]] as const
  ) {
    if (!isLoopback(host) && apiTls === undefined && !options.insecure) {
      throw new UsageError(
        `${flag}: ${host}:${port} is not loopback; give --api-tls-cert and --api-tls-key, or --insecure`,
      );
    }
  }
  if (options.token !== undefined && !/^[\x21-\x7e]{16,512}$/.test(options.token)) {
    throw new UsageError("--token: 16 to 512 printable characters without spaces");
  }
  return {
    nodeName: options.nodeName ?? hostName,
    dataDir: options.dataDir,
    stateDir: options.stateDir,
    containerdSocket: options.containerdSocket ?? `${options.dataDir}/containerd.sock`,
    containerdNamespace: options.containerdNs,
    grpcBindAddr: options.grpcBindAddr,
    httpBindAddr: options.httpBindAddr,
    apiTls,
    baseUrl: options.clusterBaseUrl,
    proxyTls: tlsFiles("--cluster-tls", options.clusterTlsCert, options.clusterTlsKey),
    proxyBindHosts: options.proxyBindAddr ?? ["::"],
    proxyWorkers: options.proxyWorkers,
    insecure: options.insecure === true,
    token: options.token,
    identityFile: options.identityKey,
    cniPath: options.cniPath ?? DEFAULT_CNI_PATH,
    subnet: options.subnet,
    registryMirrors: groupMirrors(options.registryMirror ?? []),
    insecureRegistries: options.insecureRegistry ?? [],
    vcpuLimit: options.vcpuLimit,
    proofIntervalMs: options.proofInterval,
    logMaxBytes: options.logMaxBytes,
    logMaxFiles: options.logMaxFiles,
    beacon: {
      pricePerGb: options.beaconPrice,
      reputation: options.beaconReputation,
      endpoint: options.beaconEndpoint,
    },
    cluster: clusterConfig(address, options, readTextFile),
    clusterPolicyFile: options.clusterPolicy,
    policyDir: options.policyDir,
    logLevel: options.logLevel,
    logFormat: options.logFormat,
  };
}

function clusterConfig(
  address: string | undefined,
  options: AgentOptions,
  readTextFile: (path: string) => string,
): ClusterConfig {
  let joins = (options.join ?? []).flat();
  if (address !== undefined) {
    try {
      joins = [...joins, ...parseJoin(address)];
    } catch (error) {
      throw new UsageError((error as Error).message, { cause: error });
    }
  }
  if (joins.length > MAX_JOIN_ADDRESSES) {
    throw new UsageError(`--join: at most ${MAX_JOIN_ADDRESSES} addresses`);
  }
  const keys = joins.flatMap(({ key }) => key ?? []);
  if (options.encrypt !== undefined) keys.unshift(encryptKey(options.encrypt, readTextFile));
  const key = keys.at(0);
  if (keys.some((other) => other.toBase64() !== key?.toBase64())) {
    throw new UsageError("--join and --encrypt: the gossip keys given differ; a cluster has one");
  }
  const tags = Object.fromEntries(options.tag ?? []);
  for (const name of Object.keys(tags)) {
    if (Object.values<string>(TAG).includes(name)) {
      throw new UsageError(`--tag: "${name}" is the agent's own`);
    }
  }
  return {
    bind: options.clusterBindAddr,
    advertise: options.advertiseAddr,
    joins: joins.map((join) => join.address),
    key,
    profile: options.profile,
    tags,
    requireSigned: options.requireSigned === true,
    respawn: options.respawnOnNodeFailure !== true
      ? "off"
      : options.respawnQuorum === "majority"
      ? "majority"
      : "always",
  };
}

function encryptKey(text: string, readTextFile: (path: string) => string): Uint8Array {
  try {
    return parseGossipKey(text.startsWith("@") ? readTextFile(text.slice(1)) : text);
  } catch (error) {
    throw new UsageError(`--encrypt: ${(error as Error).message}`, { cause: error });
  }
}

function tlsFiles(flags: string, certFile: string | undefined, keyFile: string | undefined) {
  if (certFile === undefined && keyFile === undefined) return undefined;
  if (certFile === undefined || keyFile === undefined) {
    throw new UsageError(`${flags}-cert and ${flags}-key go together`);
  }
  return { certFile, keyFile };
}

function groupMirrors(mirrors: readonly [string, string][]): Record<string, string[]> {
  const grouped: Record<string, string[]> = {};
  for (const [host, url] of mirrors) (grouped[host] ??= []).push(url);
  return grouped;
}

function flagOf(attribute: string): string {
  return `--${attribute.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}
