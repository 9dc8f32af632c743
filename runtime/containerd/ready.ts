import { setTimeout as delay } from "node:timers/promises";
import { RuntimeError } from "../errors.ts";
import type { ContainerdClient } from "./client.ts";

/** How long one look at a containerd may take, in milliseconds. */
const PROBE_TIMEOUT_MS = 2_000;

/** Pause between two looks, in milliseconds. */
const PROBE_INTERVAL_MS = 10;

/** Whether a containerd answers on the client's socket now, and with which version. */
export async function probe(client: ContainerdClient, signal?: AbortSignal): Promise<string | undefined> {
  try {
    return (await client.version.version({}, { signal, timeoutMs: PROBE_TIMEOUT_MS })).version;
  } catch (error) {
    if (error instanceof RuntimeError && (error.code === "unavailable" || error.code === "timeout")) {
      return undefined;
    }
    throw error;
  }
}

/**
 * Waits until containerd answers; resolves with its version. Throws `timeout` after `timeoutMs`, and the signal's
 * reason when that aborts.
 */
export async function waitUntilReady(
  client: ContainerdClient,
  options: { timeoutMs: number; signal?: AbortSignal },
): Promise<string> {
  const deadline = AbortSignal.timeout(options.timeoutMs);
  for (;;) {
    options.signal?.throwIfAborted();
    const version = await probe(client, options.signal);
    if (version !== undefined) return version;
    if (deadline.aborted) {
      throw new RuntimeError(
        "timeout",
        `Cannot reach containerd at "${client.socket}": no answer within ${options.timeoutMs} ms`,
      );
    }
    await delay(PROBE_INTERVAL_MS, undefined, { signal: options.signal });
  }
}
