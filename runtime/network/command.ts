import { AbortScope } from "../abort_scope.ts";
import { RuntimeError } from "../errors.ts";

/** Most bytes of one output stream that are kept, unless a request says otherwise; one that prints more has gone wrong. */
export const MAX_COMMAND_OUTPUT_BYTES = 4 << 20;

/** One run of a helper program. */
export interface CommandRequest {
  /** Path or name of the program. */
  program: string;
  args: readonly string[];
  /** The whole environment; nothing is inherited but `PATH`. */
  env?: Readonly<Record<string, string>>;
  stdin?: string;
  /** The program is killed after this time. */
  timeoutMs: number;
  /** Most bytes of one output stream; {@linkcode MAX_COMMAND_OUTPUT_BYTES} by default. */
  maxOutputBytes?: number;
  signal?: AbortSignal;
}

/** How a helper program ended. */
export interface CommandResult {
  code: number;
  stdout: string;
  stderr: string;
}

/**
 * Runs a helper program to its end. Throws `precondition` when there is no such program, `timeout` and `canceled`;
 * an exit code other than zero is a result.
 */
export type RunCommand = (request: CommandRequest) => Promise<CommandResult>;

/** Runs helper programs as child processes: no shell, no inherited environment. */
export const runCommand: RunCommand = async (request) => {
  const { program, args, timeoutMs, maxOutputBytes = MAX_COMMAND_OUTPUT_BYTES } = request;
  if (request.signal?.aborted) throw canceled(program, request.signal);
  using scope = new AbortScope([request.signal], { timeoutMs });
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(program, {
      args: [...args],
      env: { PATH: searchPath(), ...request.env },
      clearEnv: true,
      stdin: request.stdin === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  } catch (error) {
    throw new RuntimeError("precondition", `Cannot run "${program}": ${reason(error)}`, { cause: error });
  }
  const kill = () => {
    try {
      child.kill("SIGKILL");
    } catch (error) {
      // It ended in between.
      if (!(error instanceof TypeError) && !(error instanceof Deno.errors.NotFound)) throw error;
    }
  };
  scope.signal.addEventListener("abort", kill, { once: true });
  try {
    const [status, stdout, stderr] = await Promise.all([
      child.status,
      readBounded(child.stdout, maxOutputBytes, kill),
      readBounded(child.stderr, maxOutputBytes, kill),
      request.stdin === undefined ? undefined : writeAll(child.stdin, request.stdin),
    ]);
    if (request.signal?.aborted) throw canceled(program, request.signal);
    if (scope.signal.aborted) {
      throw new RuntimeError("timeout", `Cannot run "${program}": no end after ${timeoutMs} ms`);
    }
    return { code: status.code, stdout, stderr };
  } finally {
    scope.signal.removeEventListener("abort", kill);
  }
};

/** Root's PATH often lacks the sbin folders, where nft and iptables are. */
function searchPath(): string {
  const inherited = Deno.env.get("PATH");
  return [...inherited ? [inherited] : [], "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    .join(":");
}

function canceled(program: string, signal: AbortSignal): RuntimeError {
  return new RuntimeError("canceled", `Cannot run "${program}": canceled`, { cause: signal.reason });
}

async function readBounded(
  stream: ReadableStream<Uint8Array>,
  maxBytes: number,
  kill: () => void,
): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > maxBytes) kill();
    else chunks.push(chunk);
  }
  return await new Blob(chunks as BlobPart[]).text();
}

async function writeAll(stream: WritableStream<Uint8Array>, text: string): Promise<void> {
  const writer = stream.getWriter();
  try {
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  } catch (error) {
    // The program ended without reading its input; its exit code says why.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

function reason(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
