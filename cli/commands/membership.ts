import { parseJoin } from "../../agent/membership/join_address.ts";
import { apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { exitCode, UsageError } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";

type Options = ClientOptions & { json?: true };

/** `hypercore join ADDRESS…`. */
export async function join(given: readonly string[], options: Options, io: Io): Promise<number> {
  const addresses = given.flatMap((text) => {
    try {
      return parseJoin(text).map((each) => {
        if (each.key !== undefined) throw new Error("a running agent has its key; leave it out");
        return each.address;
      });
    } catch (error) {
      throw new UsageError((error as Error).message, { cause: error });
    }
  });
  const api = connectApi(options, io);
  const { joined } = await api.admin.join({ addresses }, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError(`Cannot join "${addresses.join(", ")}"`, api, error);
  });
  await io.out(
    options.json ? `${JSON.stringify({ joined })}\n` : `joined ${joined} of ${addresses.length}\n`,
  );
  return exitCode.ok;
}

/** `hypercore leave`. */
export async function leave(options: Options, io: Io): Promise<number> {
  const api = connectApi(options, io);
  await api.admin.leave({}, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError("Cannot leave the cluster", api, error);
  });
  await io.out(
    options.json ? `${JSON.stringify({ left: true })}\n` : "left; the agent ends, its containers run on\n",
  );
  return exitCode.ok;
}

/** `hypercore force-leave NODE`. */
export async function forceLeave(node: string, options: Options & { prune?: true }, io: Io): Promise<number> {
  const api = connectApi(options, io);
  const request = { node, prune: options.prune === true };
  await api.admin.forceLeave(request, { timeoutMs: CALL_TIMEOUT_MS }).catch((error) => {
    throw apiError(`Cannot make "${node}" leave`, api, error);
  });
  await io.out(options.json ? `${JSON.stringify({ node })}\n` : `${node}\n`);
  return exitCode.ok;
}
