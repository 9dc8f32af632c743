import type { Io } from "../io.ts";
import { run } from "../main.ts";

/** What one command line gave. */
export interface CliResult {
  code: number;
  out: string;
  err: string;
}

/** What {@linkcode runCli} can be told about the process the command sees. */
export interface CliWorld {
  env?: Record<string, string>;
  files?: Record<string, string>;
  stdin?: ReadableStream<Uint8Array>;
  terminal?: boolean;
  /** Gets a function that raises signals as soon as something listens. */
  onListen?: (signal: Deno.Signal, raise: () => void) => void;
  onRaw?: (raw: boolean) => void;
  onOut?: (text: string) => void;
}

/** Runs a command line in this process, in a world of its own. */
export async function runCli(args: readonly string[], world: CliWorld = {}): Promise<CliResult> {
  const decoder = new TextDecoder();
  const text = (data: string | Uint8Array) => typeof data === "string" ? data : decoder.decode(data);
  const result = { code: -1, out: "", err: "" };
  const terminal = world.terminal === true;
  const io: Io = {
    out(data) {
      result.out += text(data);
      world.onOut?.(text(data));
      return Promise.resolve();
    },
    err(data) {
      result.err += text(data);
      return Promise.resolve();
    },
    stdin: () => world.stdin ?? new ReadableStream({ start: (controller) => controller.close() }),
    stdinIsTerminal: terminal,
    stdoutIsTerminal: terminal,
    stderrIsTerminal: terminal,
    windowSize: () => terminal ? { columns: 100, rows: 30 } : undefined,
    setRaw: (raw) => world.onRaw?.(raw),
    env: (name) => world.env?.[name],
    onSignal(signal, listener) {
      world.onListen?.(signal, listener);
      return () => {};
    },
    readTextFile(path) {
      const file = world.files?.[path];
      if (file === undefined) throw new Deno.errors.NotFound(`no such file: ${path}`);
      return file;
    },
  };
  result.code = await run(args, io);
  return result;
}
