import assert from "node:assert/strict";
import { createClient, createRouterTransport } from "@connectrpc/connect";
import { ProofService } from "../../proto/gen/hypercore/v1/proof_pb.ts";
import { RuntimeError } from "../../runtime/errors.ts";
import { silentLog } from "../../runtime/log.ts";
import { translateErrors } from "../api/errors.ts";
import { memoryIdentity } from "../beacon/testing.ts";
import type { Workload } from "../workloads/workload.ts";
import type { ProofKeeper } from "./keeper.ts";
import { MAX_PROOF_CALLS, MAX_SHOWN_PROOFS, proofService } from "./proof_service.ts";
import { testLog } from "./testing.ts";
import { verifyLines } from "./verifier.ts";

const identity = memoryIdentity();
const stopped = "00000000000a";

function serve(lines: string[], hold: () => Promise<void> = () => Promise.resolve()) {
  const keeper = {
    has: (id: string) => Promise.resolve(id === stopped),
    lines: () => hold().then(() => lines),
    verify: (workload: string, options: { wantedHash?: string }) =>
      Promise.resolve(verifyLines(lines, { claim: identity, workload, ...options })),
  } as unknown as ProofKeeper;
  const get = (id: string): Workload => {
    if (id === "web") return { id: stopped } as Workload;
    throw new RuntimeError("not-found", `Cannot find workload "${id}"`);
  };
  const service = proofService({ keeper, identity, nodeName: "n1", get });
  return createClient(
    ProofService,
    createRouterTransport((router) => router.service(ProofService, service), {
      router: { interceptors: [translateErrors(silentLog)] },
    }),
  );
}

Deno.test("proofs are found by name while the workload runs, by id also when it was stopped", async () => {
  const client = serve(testLog(identity, 3));
  for (const id of ["web", stopped]) {
    const { workloadId, entries } = await client.show({ id, count: 2 });
    assert.deepEqual([workloadId, entries.length], [stopped, 2]);
    assert.equal((await client.verify({ id })).result, "VALID");
    assert.match(new TextDecoder().decode((await client.export({ id })).file), new RegExp(identity.nodeId));
  }
  await assert.rejects(client.show({ id: "00000000000b" }), /Cannot find proofs of workload "00000000000b"/);
  await assert.rejects(client.export({ id: "../../etc/shadow" }), /id "..\/..\/etc\/shadow"/);
});

Deno.test("an answer holds so many proofs, and so many calls are worked on at once", async () => {
  const many = Array.from({ length: MAX_SHOWN_PROOFS + 1 }, (_, i) => String(i));
  assert.equal(
    (await serve(many).show({ id: stopped, count: 4_294_967_295 })).entries.length,
    MAX_SHOWN_PROOFS,
  );
  const release = Promise.withResolvers<void>();
  const client = serve([], () => release.promise);
  const busy = Array.from({ length: MAX_PROOF_CALLS }, () => client.show({ id: stopped }));
  await assert.rejects(client.show({ id: stopped }), /Cannot open another of calls for proofs/);
  release.resolve();
  await Promise.all(busy);
});
