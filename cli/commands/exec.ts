import { ConnectError } from "@connectrpc/connect";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type ExecRequestSchema, ExecStartFailureSchema } from "../../proto/gen/hypercore/v1/workload_pb.ts";
import { type Api, apiError, connectApi } from "../api_client.ts";
import { parseDetachKeys } from "../detach_keys.ts";
import { exitCode, UsageError } from "../exit.ts";
import type { Io } from "../io.ts";
import type { ClientOptions } from "../options.ts";
import { runSession, type SessionInput } from "../session.ts";
import { requireId } from "../workload_id.ts";

/** Options of `hypercore exec`. */
export interface ExecCommandOptions extends ClientOptions {
  id?: string;
  interactive?: true;
  tty?: true;
  env?: string[];
  user?: string;
  workdir?: string;
  detachKeys: string;
}

type ExecMessage = MessageInitShape<typeof ExecRequestSchema>;

/** `hypercore exec ID COMMAND…`. Exits as the command does; 125 when it could not be asked to run. */
export async function exec(words: readonly string[], options: ExecCommandOptions, io: Io): Promise<number> {
  const id = requireId(options.id ?? words[0]);
  const command = options.id === undefined ? words.slice(1) : words;
  const args = command[0] === "--" ? command.slice(1) : command; // as after spawn
  if (args.length === 0) throw new UsageError("which command? hypercore exec ID COMMAND [ARGUMENT…]");
  const stdin = options.interactive === true;
  const tty = options.tty === true;
  if (tty && stdin && !io.stdinIsTerminal) throw new UsageError("--tty: standard input is not a terminal");
  const detachKeys = detachKeysOf(options.detachKeys);
  const api = connectApi(options, io);
  const start: ExecMessage = {
    request: {
      case: "start",
      value: {
        id,
        args: [...args],
        env: options.env ?? [],
        workingDirectory: options.workdir ?? "",
        user: options.user ?? "",
        tty,
        stdin,
        window: tty ? io.windowSize() : undefined,
      },
    },
  };
  try {
    const end = await runSession({
      io,
      stdin,
      tty,
      proxySignals: true,
      detachKeys,
      connect: (input, signal) => call(api, messages(start, input), io, signal),
    });
    return end.type === "exited" ? end.code : exitCode.ok;
  } catch (error) {
    throw apiError(`Cannot run "${args[0]}" in "${id}"`, api, error, failureCode(error));
  }
}

/** Parses `--detach-keys`. Throws {@linkcode UsageError}. */
export function detachKeysOf(text: string): number[] {
  try {
    return parseDetachKeys(text);
  } catch (error) {
    throw new UsageError(`--detach-keys: ${(error as Error).message}`, { cause: error });
  }
}

async function call(
  api: Api,
  input: AsyncIterable<ExecMessage>,
  io: Io,
  signal: AbortSignal,
): Promise<number | undefined> {
  for await (const { response } of api.workloads.exec(input, { signal, timeoutMs: 0 })) {
    if (response.case === "stdout") await io.out(response.value);
    if (response.case === "stderr") await io.err(response.value);
    if (response.case === "exitCode") return response.value;
  }
}

async function* messages(
  start: ExecMessage,
  input: AsyncIterable<SessionInput>,
): AsyncGenerator<ExecMessage> {
  yield start;
  for await (const item of input) yield { request: item };
}

/** As Docker: 127 when the command is not there, 126 when it can't be run, 125 for everything else. */
function failureCode(error: unknown): number {
  if (!(error instanceof ConnectError)) return exitCode.clientError;
  const code = error.findDetails(ExecStartFailureSchema)[0]?.exitCode;
  return code === 126 || code === 127 ? code : exitCode.clientError;
}
