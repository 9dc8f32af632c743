import { DetachScanner } from "./detach_keys.ts";
import { InputQueue } from "./input_queue.ts";
import type { Io } from "./io.ts";

/** What a session sends, whatever the call's message type is. */
export type SessionInput =
  | { case: "stdin"; value: Uint8Array<ArrayBuffer> }
  | { case: "stdinClosed"; value: true }
  | { case: "resize"; value: { columns: number; rows: number } }
  | { case: "signal"; value: number };

/** Signals that are passed on when there is no terminal to send them as keys. */
const PROXIED_SIGNALS = { SIGINT: 2, SIGTERM: 15, SIGHUP: 1, SIGQUIT: 3, SIGUSR1: 10, SIGUSR2: 12 } as const;

/** How a session ended. */
export type SessionEnd = { type: "exited"; code: number } | { type: "detached" };

/** What {@linkcode runSession} is told. */
export interface SessionOptions {
  io: Io;
  stdin: boolean;
  /** Put the local terminal in raw mode and follow its size. */
  tty: boolean;
  proxySignals: boolean;
  detachKeys: readonly number[];
  /** Makes the call: sends what the input yields, writes output, resolves with the process's exit code. */
  connect(input: AsyncIterable<SessionInput>, signal: AbortSignal): Promise<number>;
}

/** Runs one interactive session, and leaves the local terminal as it was. */
export async function runSession(options: SessionOptions): Promise<SessionEnd> {
  const { io } = options;
  const input = new InputQueue<SessionInput>();
  const ended = new AbortController();
  const undo: (() => void)[] = [];
  let detached = false;
  const detach = () => {
    detached = true;
    input.close();
    ended.abort();
  };
  const raw = options.tty && options.stdin && io.stdinIsTerminal;
  try {
    if (raw) {
      io.setRaw(true);
      undo.push(() => io.setRaw(false));
    }
    if (options.tty) undo.push(io.onSignal("SIGWINCH", () => sendSize(io, input)));
    if (options.proxySignals && !raw) {
      for (const [name, value] of Object.entries(PROXIED_SIGNALS)) {
        undo.push(io.onSignal(name as Deno.Signal, () => void input.offer({ case: "signal", value })));
      }
    } else if (!options.proxySignals) {
      undo.push(io.onSignal("SIGINT", detach), io.onSignal("SIGTERM", detach));
    }
    const scanner = new DetachScanner(raw ? options.detachKeys : []);
    const pumping = options.stdin ? pumpStdin(io, input, scanner, detach, ended.signal) : Promise.resolve();
    const code = await options.connect(input, ended.signal);
    ended.abort();
    await pumping;
    return { type: "exited", code };
  } catch (error) {
    if (detached) return { type: "detached" };
    throw error;
  } finally {
    ended.abort();
    input.close();
    for (const step of undo.reverse()) step();
  }
}

function sendSize(io: Io, input: InputQueue<SessionInput>): void {
  const size = io.windowSize();
  if (size !== undefined) input.offer({ case: "resize", value: size });
}

async function pumpStdin(
  io: Io,
  input: InputQueue<SessionInput>,
  scanner: DetachScanner,
  detach: () => void,
  signal: AbortSignal,
): Promise<void> {
  const reader = io.stdin().getReader();
  const stop = () => void reader.cancel().catch(() => {}); // the session is over: how the input ends no longer counts
  signal.addEventListener("abort", stop, { once: true });
  try {
    while (!signal.aborted) {
      const { done, value } = await reader.read();
      if (done) {
        await input.push({ case: "stdinClosed", value: true });
        return;
      }
      const { pass, detached } = scanner.scan(value);
      if (pass.length > 0 && !await input.push({ case: "stdin", value: pass })) return;
      if (detached) return detach();
    }
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
