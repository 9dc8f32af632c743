import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { exitCode } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { formatBytes } from "../table.ts";

/** `hypercore info`. */
export async function info(options: ClientOptions & { json?: true }, io: Io): Promise<number> {
  const api = connectApi(options, io);
  const answer = await api.node.info({}, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError("Cannot ask the agent about itself", api, error);
  });
  const facts = {
    node: answer.nodeName,
    nodeId: answer.nodeId,
    version: answer.version,
    gossipAddress: answer.gossipAddress,
    gossipEncrypted: answer.gossipEncrypted,
    membersAlive: answer.membersAlive,
    cordoned: answer.cordoned,
    insecure: answer.insecure,
    baseUrl: answer.baseUrl,
    workloads: answer.workloads,
    clusterWorkloads: answer.clusterWorkloads,
    vcpus: { used: answer.vcpusUsed, total: answer.vcpusTotal },
    memoryBytes: { used: Number(answer.memoryUsedBytes), total: Number(answer.memoryTotalBytes) },
    containerd: {
      version: answer.containerdVersion,
      socket: answer.containerdSocket,
      namespace: answer.containerdNamespace,
      private: answer.containerdPrivate,
    },
  };
  if (options.json) {
    await io.out(`${JSON.stringify(facts, null, 2)}\n`);
    return exitCode.ok;
  }
  const { vcpus, memoryBytes, containerd } = facts;
  const rows: [string, string][] = [
    ["node", `${facts.node} (${facts.nodeId})${facts.cordoned ? ", cordoned" : ""}`],
    ["version", facts.version],
    ["gossip", `${facts.gossipAddress}, ${facts.gossipEncrypted ? "encrypted" : "NOT ENCRYPTED"}`],
    ["API", facts.insecure ? "asks for NO TOKEN" : "asks for its token"],
    ["members", `${facts.membersAlive} alive`],
    [
      "workloads",
      `${facts.workloads} here, ${facts.clusterWorkloads} in the cluster, at <id>.${facts.baseUrl}`,
    ],
    ["vCPUs", `${vcpus.used} of ${vcpus.total} promised`],
    ["memory", `${formatBytes(memoryBytes.used)} of ${formatBytes(memoryBytes.total)} promised`],
    [
      "containerd",
      `${containerd.version} at ${containerd.socket}${containerd.private ? " (the agent's own)" : ""}, ` +
      `namespace ${containerd.namespace}`,
    ],
  ];
  await io.out(rows.map(([name, text]) => `${name.padEnd(12)}${text}\n`).join(""));
  return exitCode.ok;
}
