import type { Log } from "../runtime/log.ts";
import type { AgentConfig } from "./config.ts";
import type {
  ClusterMessage,
  PolicyQuery,
  VmSpawnRequest,
} from "../proto/gen/cluster/services/api/cluster_pb.ts";
import { evaluate } from "./policy/evaluate.ts";
import type { Candidate, PlacementRequest } from "./policy/facts.ts";
import { answerPolicyQuery, type KnownWorkload } from "./policy/query.ts";
import { PolicyGate } from "./policy/gate.ts";
import type { PolicyObservation } from "./policy/observation.ts";
import { PolicyStore } from "./policy/store.ts";

/** The policies of a node at work. */
export interface NodePolicies extends AsyncDisposable {
  readonly store: PolicyStore;
  readonly gate: PolicyGate;
}

/** What {@linkcode openPolicies} needs besides the configuration. */
export interface NodePoliciesOptions {
  nodeId: string;
  /** All nodes as they are known now, this one among them. */
  candidates: () => readonly Candidate[];
  log: Log;
  observe: (observation: PolicyObservation) => void;
  /** Calls back when the operator asks to read the files again; returns what ends that. */
  onReload?: (listener: () => void) => () => void;
}

/** What answers to POLICY_QUERY are made from. */
export interface PolicyQueriesOptions {
  node: { id: string; name: string };
  gate: Pick<PolicyGate, "choose" | "effective">;
  /** All nodes as they are known now, this one among them. */
  candidates: () => readonly Candidate[];
  /** A workload by id or name; `undefined` when it is not known here. */
  find: (idOrName: string) => Promise<KnownWorkload | undefined>;
  /** Checks a request. Throws `invalid`. */
  parse: (request: VmSpawnRequest) => PlacementRequest;
}

/** The function that answers POLICY_QUERY for this node; it never throws. */
export function policyQueries(
  options: PolicyQueriesOptions,
): (query: PolicyQuery) => Promise<ClusterMessage> {
  const { node, gate, candidates, find, parse } = options;
  return (query) =>
    answerPolicyQuery(query, {
      node,
      find,
      parse,
      policyOf: async (request) => gate.effective((await gate.choose(request)).own),
      judge: (policy, request) =>
        evaluate(policy, request, candidates(), { only: ({ id }) => id === node.id }),
    });
}

/** Reads the cluster's policy and keeps it current. Throws `invalid` when its file is bad. */
export async function openPolicies(
  config: Pick<AgentConfig, "clusterPolicyFile" | "policyDir" | "dataDir">,
  options: NodePoliciesOptions,
): Promise<NodePolicies> {
  const { nodeId, candidates, log, observe } = options;
  await using stack = new AsyncDisposableStack();
  const store = stack.use(
    new PolicyStore({
      clusterPolicyFile: config.clusterPolicyFile,
      policyDir: config.policyDir ?? `${config.dataDir}/policies`,
      log,
      nowMs: Date.now,
      setTimer(callback, delayMs) {
        const timer = setTimeout(callback, delayMs);
        return () => clearTimeout(timer);
      },
      observe,
    }),
  );
  await store.start();
  const stopReloads = options.onReload?.(() => void store.reload());
  if (stopReloads !== undefined) stack.defer(stopReloads);
  const gate = new PolicyGate({
    store,
    nodeId,
    candidates,
    log,
    elapsedMs: () => performance.now(),
    observe,
  });
  const owned = stack.move();
  return { store, gate, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
