/** How often a port in use is tried, and the pause between two tries in milliseconds. */
const TRIES = 10, PAUSE_MS = 20;

/**
 * Binds, once more while the port is in use, for a fifth of a second. A program that this process is starting holds copies
 * of all sockets between `fork(2)` and `exec(2)`, so one that has just been closed may be in use for a moment yet. Throws
 * what `bind` throws, and `Deno.errors.AddrInUse` when the port stays in use.
 */
export async function whenFree<T>(bind: () => T): Promise<T> {
  for (let tries = 1;; tries++) {
    try {
      return bind();
    } catch (error) {
      if (tries === TRIES || !(error instanceof Deno.errors.AddrInUse)) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
