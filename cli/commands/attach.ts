import type { MessageInitShape } from "@bufbuild/protobuf";
import type { AttachRequestSchema } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { type Api, apiError, CALL_TIMEOUT_MS, connectApi } from "../api_client.ts";
import { exitCode } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { runSession, type SessionInput } from "../session.ts";
import { requireId } from "../workload_id.ts";
import { detachKeysOf } from "./exec.ts";

/** Options of `hypercore attach`. */
export interface AttachCommandOptions extends ClientOptions {
  stdin: boolean;
  sigProxy: boolean;
  detachKeys: string;
  tail?: number;
}

type AttachMessage = MessageInitShape<typeof AttachRequestSchema>;

/** `hypercore attach ID`. Exits as the workload does, with 0 after the detach keys. */
export async function attach(
  given: string | undefined,
  options: AttachCommandOptions,
  io: Io,
): Promise<number> {
  const id = requireId(given);
  const detachKeys = detachKeysOf(options.detachKeys);
  const api = connectApi(options, io);
  try {
    // Whether to go raw must be known before the session starts.
    const { workload } = await api.workloads.inspect({ id }, { timeoutMs: CALL_TIMEOUT_MS });
    const tty = workload?.sourceRequest?.tty === true;
    const stdin = options.stdin && workload?.sourceRequest?.stdin === true;
    const window = tty ? io.windowSize() : undefined;
    const start: AttachMessage = {
      request: { case: "start", value: { id, stdin, window, tail: options.tail ?? 0 } },
    };
    const end = await runSession({
      io,
      stdin,
      tty,
      proxySignals: options.sigProxy,
      detachKeys,
      connect: (input, signal) => call(api, messages(start, input), io, signal),
    });
    return end.type === "exited" ? end.code : exitCode.ok;
  } catch (error) {
    throw apiError(`Cannot attach to "${id}"`, api, error, exitCode.clientError);
  }
}

async function call(
  api: Api,
  input: AsyncIterable<AttachMessage>,
  io: Io,
  signal: AbortSignal,
): Promise<number | undefined> {
  for await (const { response } of api.workloads.attach(input, { signal, timeoutMs: 0 })) {
    if (response.case === "output") await io.out(response.value);
    if (response.case === "exitCode") return response.value;
  }
}

async function* messages(
  start: AttachMessage,
  input: AsyncIterable<SessionInput>,
): AsyncGenerator<AttachMessage> {
  yield start;
  for await (const item of input) yield { request: item };
}
