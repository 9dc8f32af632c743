import assert from "node:assert/strict";
import { memoryIdentity } from "../beacon/testing.ts";
import { type AttestationParts, Attestations, MAX_ATTEST_CALLS } from "./attestations.ts";

const QUESTION = { node: "other", type: "NODE_IDENTITY", workload: "" };

/** Attestations whose questions stay open until they are cancelled. */
function waiting() {
  const { nodeId, publicKey, rotations } = memoryIdentity();
  let open = 0;
  const parts: Partial<AttestationParts> = {
    node: { id: "own", name: "own", version: "1" },
    membership: {
      ask: (_name, { signal }) => {
        open++;
        const ended = Promise.withResolvers<never>();
        signal!.addEventListener("abort", () => ended.reject(signal!.reason));
        return ended.promise;
      },
    },
    view: {
      nodeId: () => nodeId,
      nodeName: () => "other",
      find: () => assert.fail("no workload is asked for"),
    },
    claimOf: () => ({ nodeId, publicKey, rotations }),
    elapsedMs: () => 0,
  };
  return { attestations: new Attestations(parts as AttestationParts), open: () => open };
}

Deno.test("rule 8: no more questions for attestations are under way than the limit; one that ends makes room", async () => {
  const { attestations, open } = waiting();
  const calls = Array.from({ length: MAX_ATTEST_CALLS }, () => {
    const end = new AbortController();
    return { end, outcome: attestations.ask(QUESTION, end.signal).catch((error) => error.message) };
  });
  await assert.rejects(attestations.ask(QUESTION), {
    code: "exhausted",
    message: `Cannot open another of attestations: ${MAX_ATTEST_CALLS} are open already`,
  });
  assert.equal(open(), MAX_ATTEST_CALLS);
  const next = new AbortController();
  calls[0].end.abort(new Error("the caller left"));
  assert.equal(await calls[0].outcome, "the caller left");
  calls.push({ end: next, outcome: attestations.ask(QUESTION, next.signal).catch((error) => error.message) });
  assert.equal(open(), MAX_ATTEST_CALLS + 1);
  for (const { end } of calls) end.abort(new Error("the caller left"));
  assert.deepEqual(
    new Set(await Promise.all(calls.map(({ outcome }) => outcome))),
    new Set(["the caller left"]),
  );
});
