import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { exitCode } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";

type Options = ClientOptions & { json?: true };

/** `hypercore rtt NODE [OTHER]`. */
export async function rtt(
  pair: { from: string; to: string | undefined },
  options: Options,
  io: Io,
): Promise<number> {
  const { from } = pair;
  const api = connectApi(options, io);
  try {
    const to = pair.to ?? (await api.node.info({}, { timeoutMs: CALL_TIMEOUT_MS })).nodeName;
    const { rttMs } = await api.admin.rtt({ from, to }, { timeoutMs: CALL_TIMEOUT_MS });
    await io.out(
      options.json
        ? `${JSON.stringify({ from, to, rttMs })}\n`
        : `${from} and ${to}: ${rttMs.toFixed(3)} ms\n`,
    );
  } catch (error) {
    throw apiError(`Cannot estimate the round-trip time to "${from}"`, api, error);
  }
  return exitCode.ok;
}

/** `hypercore reachability`: exit code 1 when a living member did not answer. */
export async function reachability(options: Options, io: Io): Promise<number> {
  const api = connectApi(options, io);
  const { members, acked, missing } = await api.admin.reachability({}, { timeoutMs: CALL_TIMEOUT_MS })
    .catch((error) => {
      throw apiError("Cannot ask the members", api, error);
    });
  if (options.json) {
    await io.out(`${JSON.stringify({ members, acked, missing }, null, 2)}\n`);
  } else {
    await io.out(`${acked.length} of ${members} living members answered\n`);
    for (const name of missing) await io.out(`no answer: ${name}\n`);
  }
  return missing.length === 0 ? exitCode.ok : exitCode.failed;
}
