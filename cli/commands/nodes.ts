import type { MoveEvent } from "../../proto/gen/hypercore/v1/cluster_pb.ts";
import { type Api, apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { CommandError, exitCode } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { requireId } from "../workload_id.ts";

type Options = ClientOptions & { json?: true };

/** `hypercore cordon NODE` and `uncordon NODE`. */
export async function cordon(
  request: { node: string; cordoned: boolean },
  options: Options,
  io: Io,
): Promise<number> {
  const api = connectApi(options, io);
  await api.admin.cordon(request, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError(`Cannot ${request.cordoned ? "cordon" : "uncordon"} "${request.node}"`, api, error);
  });
  await io.out(options.json ? `${JSON.stringify(request)}\n` : `${request.node}\n`);
  return exitCode.ok;
}

/** `hypercore drain NODE`: exit code 1 when a workload could not be moved. */
export function drain(node: string, options: Options, io: Io): Promise<number> {
  const api = connectApi(options, io);
  return follow(api.admin.drain({ node }, { timeoutMs: 0 }), {
    action: `Cannot drain "${node}"`,
    api,
    json: options.json,
  }, io);
}

/** `hypercore move ID [--to NODE]`. */
export function move(given: string, options: Options & { to?: string }, io: Io): Promise<number> {
  const id = requireId(given);
  const api = connectApi(options, io);
  const stream = api.admin.move({ id, to: options.to ?? "" }, { timeoutMs: 0 });
  return follow(stream, { action: `Cannot move "${id}"`, api, json: options.json }, io);
}

async function follow(
  stream: AsyncIterable<MoveEvent>,
  context: { action: string; api: Api; json?: true },
  io: Io,
): Promise<number> {
  const { action, api } = context;
  const failed: string[] = [];
  try {
    for await (const { id, step, node, detail } of stream) {
      if (step === "failed") failed.push(`${id}: ${detail}`);
      const text = context.json
        ? JSON.stringify({ id, step, node, detail })
        : [id, step, node, detail].filter((word) => word !== "").join("  ");
      await io.out(`${text}\n`);
    }
  } catch (error) {
    throw apiError(action, api, error);
  }
  if (failed.length > 0) throw new CommandError(`${action}: ${failed.join("; ")}`);
  return exitCode.ok;
}
