import assert from "node:assert/strict";
import type { IdentityClaim } from "../beacon/identity.ts";
import { memoryIdentity } from "../beacon/testing.ts";
import { exportText } from "./export.ts";
import { verifyExport } from "./remote_log.ts";
import { testLog } from "./testing.ts";

const WORKLOAD = "00000000000a";
const snapshot = ({ nodeId, publicKey, rotations }: IdentityClaim) => ({ nodeId, publicKey, rotations });

function file(claim: IdentityClaim, lines: string[]) {
  return new TextEncoder().encode(exportText({ claim, workload: WORKLOAD, lines }));
}

Deno.test("a log that a rotation came into since its node's state was told is valid; another history is not", async () => {
  const owner = memoryIdentity();
  const known = snapshot(owner);
  await owner.rotate(1_000);
  const lines = testLog(owner, 2);
  const verify = async (given: IdentityClaim, claim?: IdentityClaim) => {
    const { verdict } = await verifyExport(file(given, lines), {
      nodeId: owner.nodeId,
      workload: WORKLOAD,
      claim,
    });
    return verdict.result;
  };
  assert.equal(await verify(snapshot(owner), known), "VALID");
  assert.equal(await verify(snapshot(owner)), "VALID");
  assert.equal(await verify(known, known), "INVALID");
  const stranger = memoryIdentity();
  assert.equal(await verify({ ...snapshot(stranger), nodeId: owner.nodeId }, known), "INVALID");
  await stranger.rotate(2_000);
  assert.equal(await verify({ ...snapshot(stranger), nodeId: owner.nodeId }, known), "INVALID");
  assert.equal(await verify(snapshot(stranger)), "INVALID");
});
