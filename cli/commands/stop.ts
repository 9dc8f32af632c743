import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { exitCode } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { requireId } from "../workload_id.ts";

/** `hypercore stop ID`. */
export async function stop(
  given: string | undefined,
  options: ClientOptions & { grace?: number; json?: true },
  io: Io,
): Promise<number> {
  const id = requireId(given);
  const api = connectApi(options, io);
  const timeoutMs = CALL_TIMEOUT_MS + (options.grace ?? 0);
  const node = await api.cluster.stop({ id, graceMs: options.grace }, { timeoutMs }).catch((error) => {
    throw apiError(`Cannot stop "${id}"`, api, error);
  });
  await io.out(options.json ? `${JSON.stringify({ id, node: node.name || node.id })}\n` : `${id}\n`);
  return exitCode.ok;
}
