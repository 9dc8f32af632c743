/** The process as commands see it: streams, terminal, environment and signals. Tests give their own. */
export interface Io {
  /** Writes to standard output; a reader that went away (EPIPE) ends the program's output silently. */
  out(text: string | Uint8Array): Promise<void>;
  err(text: string | Uint8Array): Promise<void>;
  /** Chunks of standard input until its end. */
  stdin(): ReadableStream<Uint8Array>;
  readonly stdinIsTerminal: boolean;
  readonly stdoutIsTerminal: boolean;
  readonly stderrIsTerminal: boolean;
  /** Undefined when there is no terminal. */
  windowSize(): { columns: number; rows: number } | undefined;
  /** Raw mode of the terminal at standard input. */
  setRaw(raw: boolean): void;
  env(name: string): string | undefined;
  /** Calls back on a signal until the returned function is called. */
  onSignal(signal: Deno.Signal, listener: () => void): () => void;
  readTextFile(path: string): string;
}

/** The real process. */
export function denoIo(): Io {
  return {
    out: (text) => writeAll(Deno.stdout, text),
    err: (text) => writeAll(Deno.stderr, text),
    stdin: () => Deno.stdin.readable,
    stdinIsTerminal: Deno.stdin.isTerminal(),
    stdoutIsTerminal: Deno.stdout.isTerminal(),
    stderrIsTerminal: Deno.stderr.isTerminal(),
    windowSize() {
      try {
        const { columns, rows } = Deno.consoleSize();
        return columns > 0 && rows > 0 ? { columns, rows } : undefined;
      } catch {
        return undefined; // not a terminal
      }
    },
    setRaw: (raw) => Deno.stdin.setRaw(raw),
    env: (name) => Deno.env.get(name),
    onSignal(signal, listener) {
      Deno.addSignalListener(signal, listener);
      return () => Deno.removeSignalListener(signal, listener);
    },
    readTextFile: (path) => new TextDecoder("utf-8", { fatal: true }).decode(Deno.readFileSync(path)),
  };
}

async function writeAll(stream: typeof Deno.stdout, text: string | Uint8Array): Promise<void> {
  let rest = typeof text === "string" ? new TextEncoder().encode(text) : text;
  try {
    while (rest.length > 0) rest = rest.subarray(await stream.write(rest));
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
    Deno.exit(exitOnBrokenPipe);
  }
}

/** As a program that SIGPIPE ended. */
const exitOnBrokenPipe = 128 + 13;
