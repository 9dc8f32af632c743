import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { CommandError, exitCode } from "../exit.ts";
import type { Io } from "../io.ts";
import { workloadJson } from "../json.ts";
import type { ClientOptions } from "../options.ts";
import { requireId } from "../workload_id.ts";

/** `hypercore inspect ID`: always JSON. */
export async function inspect(given: string | undefined, options: ClientOptions, io: Io): Promise<number> {
  const id = requireId(given);
  const api = connectApi(options, io);
  const answer = await api.workloads.inspect({ id }, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError(`Cannot inspect "${id}"`, api, error);
  });
  if (answer.workload === undefined) {
    throw new CommandError(`Cannot inspect "${id}": the agent's answer is empty`);
  }
  const { address, pid, imageDigest, runtime, logPath } = answer;
  const spec = answer.specJson === "" ? null : JSON.parse(answer.specJson);
  const workload = workloadJson(answer.workload, answer.node?.name || answer.node?.id || "");
  await io.out(
    `${JSON.stringify({ ...workload, runtime, address, pid, imageDigest, logPath, spec }, null, 2)}\n`,
  );
  return exitCode.ok;
}
