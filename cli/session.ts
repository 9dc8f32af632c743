import { DetachScanner } from "./detach_keys.ts";
import { CommandError, exitCode } from "./exit.ts";
import { InputQueue } from "./input_queue.ts";
import type { Io } from "./io.ts";

/** What a session sends, whatever the call's message type is. */
export type SessionInput =
  | { case: "stdin"; value: Uint8Array<ArrayBuffer> }
  | { case: "stdinClosed"; value: true }
  | { case: "resize"; value: { columns: number; rows: number } }
  | { case: "signal"; value: number }
  | { case: "detach"; value: true };

/** How long the agent may take to pass on what was typed before the detach keys, ms. */
export const DETACH_TIMEOUT_MS = 5_000;

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
  /**
   * Makes the call: sends what the input yields, writes output, resolves with the process's exit code, or with nothing
   * when the agent ended the session without one.
   */
  connect(input: AsyncIterable<SessionInput>, signal: AbortSignal): Promise<number | undefined>;
}

/**
 * Runs one interactive session, and leaves the local terminal as it was. A signal that comes again before the first
 * could be passed on, because the process takes no input, ends the session: nobody is locked in.
 */
export async function runSession(options: SessionOptions): Promise<SessionEnd> {
  const { io } = options;
  const input = new InputQueue<SessionInput>();
  const ended = new AbortController();
  const undo: (() => void)[] = [];
  let end: SessionEnd | undefined;
  const leave = (how: SessionEnd) => {
    end ??= how;
    input.close();
    ended.abort();
  };
  const detach = async () => {
    end ??= { type: "detached" };
    const timer = setTimeout(() => ended.abort(), DETACH_TIMEOUT_MS);
    undo.push(() => clearTimeout(timer));
    await input.push({ case: "detach", value: true });
    input.close();
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
        undo.push(io.onSignal(name as Deno.Signal, () => {
          const isRepeated = input.urge(name, { case: "signal", value });
          if (isRepeated) leave({ type: "exited", code: 128 + value });
        }));
      }
    } else if (!options.proxySignals) {
      const go = () => leave({ type: "detached" });
      undo.push(io.onSignal("SIGINT", go), io.onSignal("SIGTERM", go));
    }
    const scanner = new DetachScanner(raw ? options.detachKeys : []);
    const pumping = options.stdin ? pumpStdin(io, input, scanner, detach, ended.signal) : Promise.resolve();
    const code = await options.connect(input, ended.signal);
    ended.abort();
    await pumping;
    if (code !== undefined) return { type: "exited", code };
    if (end !== undefined) return end;
    throw new CommandError("the agent ended the session without an exit code", exitCode.clientError);
  } catch (error) {
    if (end !== undefined) return end;
    throw error;
  } finally {
    ended.abort();
    input.close();
    for (const step of undo.reverse()) step();
  }
}

function sendSize(io: Io, input: InputQueue<SessionInput>): void {
  const size = io.windowSize();
  if (size !== undefined) input.urge("resize", { case: "resize", value: size });
}

async function pumpStdin(
  io: Io,
  input: InputQueue<SessionInput>,
  scanner: DetachScanner,
  detach: () => Promise<void>,
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
      if (detached) return await detach();
    }
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
