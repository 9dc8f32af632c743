import { equalBytes } from "./codec/text.ts";
import type { KeyResult } from "./key_result.ts";

/** Tries of each step before a rotation stops: an answer may be lost on the way. */
const TRIES = 3;

/** What a rotation needs of a member. */
export interface KeyHolder {
  keys(): Uint8Array[] | undefined;
  installKey(key: Uint8Array, options?: { timeoutMs?: number }): Promise<KeyResult>;
  useKey(key: Uint8Array, options?: { timeoutMs?: number }): Promise<KeyResult>;
  removeKey(key: Uint8Array, options?: { timeoutMs?: number }): Promise<KeyResult>;
}

/** How far a rotation came. */
export interface Rotation {
  /** Whether every living member seals with the new key and has no other. */
  ok: boolean;
  /** The step that came last. */
  step: "install" | "use" | "remove";
  /** What came of it. */
  result: KeyResult;
}

/**
 * Gives the cluster a new key: installs it everywhere, then uses it everywhere, then removes all others. It goes on only
 * where every living member did the step before, so it never cuts a living member off; where it stops, it can be
 * called again with the same key. Members that are away get the ring when they come back. Throws Error where gossip is
 * not encrypted.
 */
export async function rotateKey(
  member: KeyHolder,
  fresh: Uint8Array,
  options: { timeoutMs?: number } = {},
): Promise<Rotation> {
  const insist = async (operate: () => Promise<KeyResult>) => {
    let result = await operate();
    for (let tries = 1; tries < TRIES && !result.ok && result.errors.size === 0; tries++) {
      result = await operate();
    }
    return result;
  };
  if (member.keys() === undefined) throw new Error('Cannot rotate "gossip key": gossip is not encrypted');
  const installed = await insist(() => member.installKey(fresh, options));
  if (!installed.ok) return { ok: false, step: "install", result: installed };
  let result = await insist(() => member.useKey(fresh, options));
  if (!result.ok) return { ok: false, step: "use", result };
  for (const key of member.keys()!) {
    if (equalBytes(key, fresh)) continue;
    result = await insist(() => member.removeKey(key, options));
    if (!result.ok) return { ok: false, step: "remove", result };
  }
  return { ok: true, step: "remove", result };
}
