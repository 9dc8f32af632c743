/** What an isolate holds when its garbage has been collected, in bytes: its heap, and what that holds outside of it. */
export interface Held {
  heapUsed: number;
  external: number;
}

/** Where a main thread asks its workers, by the word "collect", for what they hold: each posts one {@linkcode Held}. */
export const MEMORY_CHANNEL = "memory";

/** One collection frees what the finalizers of the one before have let go of. */
const COLLECTIONS = 3;

/** Collects the garbage of this thread's isolate; needs `--v8-flags=--expose-gc`. */
export async function collectGarbage(): Promise<Held> {
  const { gc } = globalThis as unknown as { gc: () => void };
  for (let i = 0; i < COLLECTIONS; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve));
  }
  const { heapUsed, external } = Deno.memoryUsage();
  return { heapUsed, external };
}
