import { type Command, Option } from "@commander-js/extra-typings";
import { collected, configOption, DEFAULT_API, DEFAULT_DATA_DIR, parsed } from "./options.ts";
import { parseRegistryEndpoint } from "../agent/beacon/registry_endpoint.ts";
import { parseJoin } from "../agent/membership/join_address.ts";
import { isHostName, isIpv4, isIpv6, parseHostPort } from "./parse/host_port.ts";
import { parseDuration } from "./parse/duration.ts";
import { parseBytes, parseDecimal, parseInteger, parsePair, parseSubnet } from "./parse/values.ts";

/** Default bind address of gossip. */
export const DEFAULT_CLUSTER_BIND = ":7946";

/** Highest price per GB. */
export const MAX_PRICE = 1_000_000;

/** Adds the flags of `hypercore agent`. Addresses and sizes arrive parsed. */
export function addAgentOptions(command: Command) {
  return command
    .addOption(configOption())
    .addOption(
      parsed("--grpc-bind-addr <host:port>", "API: gRPC, gRPC-Web, Connect", parseHostPort)
        .default(parseHostPort(DEFAULT_API), DEFAULT_API),
    )
    .addOption(
      parsed("--http-bind-addr <host:port>", "plain HTTP API, health, metrics", parseHostPort)
        .default(parseHostPort("127.0.0.1:8001"), "127.0.0.1:8001"),
    )
    .addOption(new Option("--data-dir <dir>", "what must survive a reboot").default(DEFAULT_DATA_DIR))
    .addOption(new Option("--state-dir <dir>", "what need not").default("/run/hypercore"))
    .addOption(
      new Option(
        "--containerd-socket <path>",
        "containerd; one is started when none answers (default: in the data dir)",
      ),
    )
    .addOption(new Option("--containerd-ns <name>", "containerd namespace").default("vistara"))
    .addOption(
      parsed("--cluster-base-url <domain>", "workloads answer at <id>.<domain>", parseDomain).default(
        "example.com",
      ),
    )
    .addOption(
      new Option("--cluster-tls-cert <file>", "certificate of the workload proxy (port 80 stays plain)"),
    )
    .addOption(new Option("--cluster-tls-key <file>", "its key"))
    .addOption(new Option("--api-tls-cert <file>", "certificate of both APIs; needed off loopback"))
    .addOption(new Option("--api-tls-key <file>", "its key"))
    .addOption(
      new Option("--token <token>", "API token (default: made at first start, kept in the data dir)"),
    )
    .addOption(new Option("--insecure", "no token on the API"))
    .addOption(
      new Option(
        "--identity-key <file>",
        "the node's Ed25519 key, made at first start (default: identity.key in the data dir)",
      ),
    )
    .addOption(parsed("--node-name <name>", "name of this node (default: host name)", parseNodeName))
    .addOption(
      collected(
        "--proxy-bind-addr <host>",
        "address the proxy's host ports are opened on (default: all)",
        parseHost,
      ),
    )
    .addOption(
      parsed(
        "--proxy-workers <count>",
        "proxy threads, 0 for one per CPU",
        (text) => parseInteger(text, 0, 256),
      ).default(0),
    )
    .addOption(
      collected(
        "--cni-path <dir>",
        "directories with CNI plugins (default: /usr/lib/cni, /opt/cni/bin)",
        parseAbsolute,
      ),
    )
    .addOption(parsed("--subnet <cidr>", "network of the guests", parseSubnet).default("192.168.127.0/24"))
    .addOption(collected("--registry-mirror <host=url>", "mirror tried before a registry", parseMirror))
    .addOption(collected("--insecure-registry <host>", "registry reached by plain HTTP", (text) => text))
    .addOption(
      parsed(
        "--vcpu-limit <count>",
        "most vCPUs handed out (default: max(CPUs, 225))",
        (text) => parseInteger(text, 1, 1_000_000),
      ),
    )
    .addOption(
      parsed(
        "--proof-interval <duration>",
        "time between two proofs of what a workload uses, e.g. 30s or 5m",
        (text) => parseDuration(text, { minMs: 100, maxMs: 86_400_000 }),
      ).default(60_000, "60s"),
    )
    .addOption(
      parsed("--log-max-bytes <bytes>", "size at which a workload's log is rotated", parseBytes).default(
        16_777_216,
        "16m",
      ),
    )
    .addOption(
      parsed("--log-max-files <count>", "rotated log files kept", (text) => parseInteger(text, 1, 100))
        .default(2),
    )
    .addOption(
      new Option("--log-level <level>", "of the agent's own log").choices(
        ["debug", "info", "warn", "error"] as const,
      ).default("info" as const),
    )
    .addOption(
      new Option("--log-format <format>", "of the agent's own log").choices(["text", "json"] as const)
        .default("text" as const),
    )
    .addOption(
      collected(
        "--join <[key@]host[:port]>",
        "member to join, as its start or `keys show` prints it",
        parseJoin,
      ),
    )
    .addOption(
      parsed("--cluster-bind-addr <host:port>", "gossip and calls between nodes, UDP and TCP", parseHostPort)
        .default(parseHostPort(DEFAULT_CLUSTER_BIND), DEFAULT_CLUSTER_BIND),
    )
    .addOption(
      parsed(
        "--advertise-addr <host:port>",
        "address other members reach this node at",
        parseHostPort,
      ),
    )
    .addOption(
      new Option("--profile <name>", "gossip timing").choices(["hypercore", "lan", "wan", "local"] as const)
        .default("hypercore" as const),
    )
    .addOption(new Option("--encrypt <key>", "gossip key in base64, or @file (default: made at first start)"))
    .addOption(new Option("--respawn-on-node-failure", "reschedule the workloads of a dead node"))
    .addOption(
      new Option("--respawn-quorum <rule>", "where rescheduling is allowed").choices(
        ["any", "majority"] as const,
      )
        .default("any" as const),
    )
    .addOption(
      new Option("--require-signed", "believe no state of a node that is not signed by its identity"),
    )
    .addOption(
      new Option(
        "--cluster-policy <file>",
        "policy of the cluster, read again when it changes and on SIGHUP",
      ),
    )
    .addOption(
      new Option(
        "--policy-dir <dir>",
        "folder with the policies spawns may name (default: policies in the data dir)",
      ),
    )
    .addOption(parsed(
      "--beacon-endpoint <url>",
      "external registry of beacons, http://, https:// or tcp://host:port; the node goes on without it when it is away",
      parseRegistryEndpoint,
    ))
    .addOption(
      parsed(
        "--beacon-price <price>",
        "price per GB that this node asks for, in any currency the cluster agrees on",
        (text) => parseDecimal(text, 0, MAX_PRICE),
      ).default(0),
    )
    .addOption(
      parsed(
        "--beacon-reputation <score>",
        "what this node's reputation starts from, 0 to 1; what it does counts from then on",
        (text) => parseDecimal(text, 0, 1),
      ).default(0.5),
    )
    .addOption(collected("--tag <K=V>", "tag of this node", parsePair))
    .addOption(
      new Option("--provider <name>", "accepted for the original's command lines; has no effect here")
        .hideHelp(),
    )
    .addOption(
      new Option("--hac <file>", "accepted for the original's command lines; has no effect here").hideHelp(),
    );
}

/** Options of `hypercore agent` as its action gets them. */
export type AgentOptions = ReturnType<ReturnType<typeof addAgentOptions>["opts"]>;

function parseDomain(text: string): string {
  const domain = text.toLowerCase();
  if (!isHostName(domain)) throw new Error(`"${text}" is not a domain name`);
  return domain;
}

function parseNodeName(text: string): string {
  if (!/^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,126}[a-zA-Z0-9])?$/.test(text)) {
    throw new Error(`"${text}" is not a node name (1 to 128 of a-z, 0-9, ., _ and -)`);
  }
  return text;
}

function parseHost(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, "$1");
  if (!isIpv4(host) && !isIpv6(host)) throw new Error(`"${text}" is not an IP address`);
  return host;
}

function parseAbsolute(text: string): string {
  if (!text.startsWith("/")) throw new Error(`"${text}" is not an absolute path`);
  return text;
}

function parseMirror(text: string): [string, string] {
  const [host, url] = parsePair(text);
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new Error(`"${url}" is not an http(s) URL`);
  }
  return [host, url];
}
