import type { Log } from "../runtime/log.ts";
import type { AgentConfig } from "./config.ts";
import type { Candidate } from "./policy/facts.ts";
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
