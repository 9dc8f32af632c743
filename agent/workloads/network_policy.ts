import type { WorkloadContext } from "./context.ts";
import type { Workload } from "./workload.ts";

/** Gives every workload the network rules that the policies have for it now; work is under way when this returns. */
export function applyNetworkPolicies(context: WorkloadContext): void {
  for (const workload of context.workloads.values()) {
    context.background("cannot change the network rules of a workload", workload.id, () => {
      return context.queue.run(workload.id, () => apply(context, workload));
    });
  }
}

async function apply(context: WorkloadContext, workload: Workload): Promise<void> {
  const { engine, log, policies } = context.options;
  const { id, record } = workload;
  if (policies === undefined || workload.phase === "stopping" || context.workloads.get(id) !== workload) {
    return;
  }
  const { own } = await policies.choose(record.request);
  const rules = policies.networkRules(own);
  const { networkRules } = await engine.get(id);
  if (JSON.stringify(networkRules) === JSON.stringify(rules)) return;
  await engine.setNetworkRules(id, rules);
  log.info("network rules of a workload changed", { id });
}
