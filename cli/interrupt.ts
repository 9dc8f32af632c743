import type { Io } from "./io.ts";

/** A signal that aborts on the first Ctrl-C or SIGTERM; dispose stops listening. */
export function untilInterrupted(io: Io): { signal: AbortSignal } & Disposable {
  const controller = new AbortController();
  const stops = (["SIGINT", "SIGTERM"] as const).map((name) => io.onSignal(name, () => controller.abort()));
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const stop of stops) stop();
    },
  };
}
