import { GOSSIP } from "../cluster/tags.ts";
import type { Membership } from "../membership/membership.ts";

/** One question of the original's kind. */
export interface Question {
  /** Name of the member that is asked. */
  member: string;
  payload: Uint8Array;
  /** Wait for the answer at most, milliseconds. */
  timeoutMs: number;
  signal?: AbortSignal;
}

/** Asks one member by a query for it alone; its first answer, or nothing where none came in time. Throws when canceled. */
export async function askOne(
  membership: Pick<Membership, "ask">,
  { member, payload, timeoutMs, signal }: Question,
): Promise<Uint8Array | undefined> {
  const enough = new AbortController();
  let answer: Uint8Array | undefined;
  await membership.ask(GOSSIP.query, {
    payload,
    filters: [{ kind: "nodes", nodes: [member] }],
    timeoutMs,
    signal: signal === undefined ? enough.signal : AbortSignal.any([enough.signal, signal]),
    onResponse(from, response) {
      if (from !== member || answer !== undefined) return;
      answer = response;
      // Not within the call: gossip is still at work on the packet.
      queueMicrotask(() => enough.abort());
    },
  });
  signal?.throwIfAborted();
  return answer;
}
