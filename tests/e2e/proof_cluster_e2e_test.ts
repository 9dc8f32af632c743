import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import { LiveCluster } from "./live_cluster.ts";
import type { LiveAgent } from "./live_agent.ts";

async function verify(agent: LiveAgent, ...args: string[]): Promise<Record<string, unknown>> {
  const { out, err } = await agent.cli(["proof", "verify", "--json", ...args]);
  assert.notEqual(out, "", err);
  return JSON.parse(out);
}

Deno.test("a node verifies what another one proved, and finds out when that one's log was changed", async () => {
  await using cluster = await LiveCluster.start(2, { flags: ["--proof-interval", "300ms"] });
  const [n1, n2] = cluster.agents;
  await n2.load(busyboxImage(), "test/web:1");
  const id = await n1.spawn("--image", "test/web:1", "--node", "n2", "--name", "web", "--mem", "64");
  await cluster.until("three proofs are seen from the other node", async () => {
    const { code, out } = await n1.cli(["proof", "show", "web", "--last", "9", "--json"]);
    return code === 0 && JSON.parse(out).length >= 3;
  });
  const { nodeId } = JSON.parse(await n2.ok("identity", "show", "--json"));
  for (const agent of [n1, n2]) {
    const { result, node, verifiedBy, reason } = await verify(agent, "web");
    assert.deepEqual([result, node, verifiedBy], ["VALID", nodeId, agent.name], String(reason));
  }
  await n1.ok("proof", "export", id, "--output", `${n1.dir}/proofs.jsonl`);
  assert.equal((await verify(n1, "--file", `${n1.dir}/proofs.jsonl`, "--node-id", nodeId)).result, "VALID");

  const path = `${n2.dataDir}/proofs/${id}.jsonl`;
  const text = await Deno.readTextFile(path);
  const at = text.indexOf('"pids":') + '"pids":'.length;
  {
    // In place: the agent goes on writing behind it.
    using file = await Deno.open(path, { write: true });
    await file.seek(at, Deno.SeekMode.Start);
    await file.write(new TextEncoder().encode(text[at] === "9" ? "8" : "9"));
  }
  const { result, badSeq } = await verify(n1, id);
  assert.deepEqual([result, badSeq], ["INVALID", 1]);
});
