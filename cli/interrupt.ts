import { CommandError, exitCode } from "./exit.ts";
import type { Io } from "./io.ts";

/** Listens for Ctrl-C and SIGTERM until dispose. */
export interface Interrupt extends Disposable {
  /** Aborts on the first of them. */
  readonly signal: AbortSignal;
  /** What a failed action ends with: `otherwise`, unless it failed since the user wanted it to. */
  error(action: string, otherwise: () => CommandError): CommandError;
}

/** Begins to listen. */
export function untilInterrupted(io: Io): Interrupt {
  const controller = new AbortController();
  const { signal } = controller;
  const stops = (["SIGINT", "SIGTERM"] as const).map((name) => io.onSignal(name, () => controller.abort()));
  return {
    signal,
    error: (action, otherwise) =>
      signal.aborted ? new CommandError(`${action}: interrupted`, exitCode.interrupted) : otherwise(),
    [Symbol.dispose]() {
      for (const stop of stops) stop();
    },
  };
}
