import type { ServiceImpl } from "@connectrpc/connect";
import type { Registry } from "prom-client";
import type { ProofService } from "../proto/gen/hypercore/v1/proof_pb.ts";
import type { ContainerEngine } from "../runtime/engine.ts";
import type { Log } from "../runtime/log.ts";
import type { NodeIdentity } from "./beacon/identity.ts";
import type { AgentConfig } from "./config.ts";
import { ProofMetrics } from "./metrics/proof_metrics.ts";
import { ProofKeeper, type ProofObservation } from "./proof/keeper.ts";
import { ProofLogs, PROOFS_DIR } from "./proof/log_store.ts";
import { proofService } from "./proof/proof_service.ts";
import { ProofQueries, type ProofQueryParts } from "./proof/query.ts";
import type { WorkloadManager } from "./workloads/manager.ts";

/** The proofs of a node at work. */
export interface NodeProofs extends AsyncDisposable {
  /** To be started before the workloads of an earlier agent are adopted, and resumed after that. */
  readonly keeper: ProofKeeper;
  /** Of this node's workloads. */
  readonly service: ServiceImpl<typeof ProofService>;
  /** Answers PROOF_VERIFY; `remote` finds what is known of the workloads of other nodes. */
  queries(remote?: ProofQueryParts["remote"]): ProofQueries;
  /** Counts what others do with proofs. */
  observe(observation: ProofObservation): void;
}

/** What {@linkcode openProofs} needs besides the configuration. */
export interface NodeProofsOptions {
  manager: WorkloadManager;
  engine: Pick<ContainerEngine, "metrics">;
  identity: NodeIdentity;
  registry: Registry;
  /** Told that workloads have newer proofs. */
  onProofs?: () => void;
  log: Log;
}

/** Puts the proofs of a node together; nothing is read or written yet. */
export function openProofs(
  config: Pick<AgentConfig, "dataDir" | "nodeName" | "proofIntervalMs">,
  options: NodeProofsOptions,
): NodeProofs {
  const { manager, engine, identity, registry, log } = options;
  const metrics = new ProofMetrics(registry);
  const observe = (observation: ProofObservation) => metrics.observe(observation);
  const keeper = new ProofKeeper({
    workloads: manager,
    engine,
    identity,
    logs: new ProofLogs({ dir: `${config.dataDir}/${PROOFS_DIR}`, log }),
    log,
    intervalMs: config.proofIntervalMs,
    nowMs: Date.now,
    monotonicMs: () => performance.now(),
    setTimer(callback, delayMs) {
      const timer = setTimeout(callback, delayMs);
      return () => clearTimeout(timer);
    },
    onProofs: options.onProofs,
    observe,
  });
  return {
    keeper,
    observe,
    service: proofService({
      keeper,
      identity,
      nodeName: config.nodeName,
      get: (idOrName) => manager.get(idOrName),
      observe,
    }),
    queries: (remote) => new ProofQueries({ keeper, identity, remote, observe }),
    [Symbol.asyncDispose]: () => keeper[Symbol.asyncDispose](),
  };
}
