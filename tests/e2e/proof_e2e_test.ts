import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import { LiveAgent, until } from "./live_agent.ts";

const IMAGE = "test/busy:1";
/** Uses its CPU, writes, and ends by itself when it is told so. */
const BUSY = "i=0; while [ ! -e /tmp/end ]; do i=$((i+1)); done; exit 3";

interface Verdict {
  result: string;
  /** Empty when there is none to give. */
  reason: string;
  proofs: number;
  cpuUs: number;
  wallMs: number;
  lastHash: string;
}

interface Entry {
  hash: string;
  body: Record<string, number> & { kind: string; measured: string; image_digest: string };
}

async function verify(agent: LiveAgent, ...args: string[]): Promise<Verdict & { code: number }> {
  const { code, out, err } = await agent.cli(["proof", "verify", "--json", ...args]);
  assert.notEqual(out, "", err);
  return { code, reason: "", ...JSON.parse(out) };
}

async function entries(agent: LiveAgent, id: string): Promise<Entry[]> {
  return JSON.parse(await agent.ok("proof", "show", id, "--json", "--last", "1000"));
}

Deno.test("what a container used is proven from its start to its stop, across a crash and kill -9 of the agent", async (t) => {
  await using agent = await LiveAgent.start({ flags: ["--proof-interval", "500ms"] });
  await agent.load(busyboxImage(), IMAGE);
  const id = await agent.spawn("--image", IMAGE, "--cpu", "0.5", "--mem", "64", "--", "sh", "-c", BUSY);

  await t.step("two proofs later it has used CPU, within its limit, and verifies", async () => {
    await until("three proofs", async () => (await entries(agent, id)).length >= 3);
    const [start, , third] = await entries(agent, id);
    assert.deepEqual([start.body.kind, third.body.kind, third.body.measured], ["start", "interval", "live"]);
    assert(third.body.cpu_us > start.body.cpu_us && third.body.wall_ms > start.body.wall_ms);
    assert(third.body.memory_bytes > 0 && third.body.memory_peak_bytes >= third.body.memory_bytes);
    assert.match(third.body.image_digest, /^sha256:[0-9a-f]{64}$/);
    const verdict = await verify(agent, id);
    assert.deepEqual([verdict.code, verdict.result], [0, "VALID"], verdict.reason);
  });
  await t.step("list and inspect carry the newest proof", async () => {
    const [{ proof }] = await agent.list() as { proof: { hash: string; cpuUs: number } }[];
    assert.match(proof.hash, /^[0-9a-f]{64}$/);
    assert((await entries(agent, id)).some(({ hash }) => hash === proof.hash));
    assert.equal(typeof JSON.parse(await agent.ok("inspect", id)).proof.cpuUs, "number");
    const asked = await verify(agent, id, "--hash", proof.hash);
    assert.deepEqual([asked.code, asked.result], [0, "VALID"]);
    assert.equal((await verify(agent, id, "--hash", "0".repeat(64))).result, "UNKNOWN");
  });
  await t.step("the end of a run is proven with its last figures, and the next run follows", async () => {
    // Once the exec's own process is gone: the end of the container kills what runs in it.
    const end = "(while kill -0 $$; do usleep 20000; done; touch /tmp/end) >/dev/null 2>&1 &";
    await agent.ok("exec", id, "sh", "-c", end);
    await until(
      "the exit is proven",
      async () => (await entries(agent, id)).some(({ body }) => body.kind === "exit"),
    );
    const exit = (await entries(agent, id)).find(({ body }) => body.kind === "exit")!;
    assert.deepEqual([exit.body.exit_code, exit.body.measured], [3, "last"]);
    await until(
      "the next run is proven",
      async () => (await entries(agent, id)).at(-1)!.body.generation === 2,
    );
  });
  await t.step("an agent that was killed goes on with the chain", async () => {
    await agent.end("SIGKILL");
    await agent.run();
    await until(
      "it resumes",
      async () => (await entries(agent, id)).some(({ body }) => body.kind === "resume"),
    );
    const verdict = await verify(agent, id);
    assert.deepEqual([verdict.code, verdict.result], [0, "VALID"], verdict.reason);
  });
  await t.step(
    "a rotation of the key is in the chain, and the export verifies without any agent",
    async () => {
      const before = JSON.parse(await agent.ok("identity", "show", "--json"));
      const after = JSON.parse(await agent.ok("identity", "rotate", "--json"));
      assert.deepEqual([after.nodeId, after.rotations.length], [before.nodeId, 1]);
      const { length } = await entries(agent, id);
      await until("proofs by the new key", async () => (await entries(agent, id)).length > length + 1);
      const file = `${agent.dir}/proofs.jsonl`;
      await agent.ok("proof", "export", id, "--output", file);
      const offline = (...args: string[]) =>
        verify(agent, "--file", file, "--data-dir", "/nonexistent", ...args);
      for (const key of [before.publicKey, after.publicKey]) {
        const verdict = await offline("--public-key", key, "--node-id", before.nodeId);
        assert.deepEqual([verdict.code, verdict.result], [0, "VALID"], verdict.reason);
      }
      const text = await Deno.readTextFile(file);
      await Deno.writeTextFile(file, text.replace(/"cpu_us":\d+(?![\s\S]*"cpu_us")/, '"cpu_us":1'));
      const forged = await offline();
      assert.deepEqual([forged.code, forged.result], [1, "INVALID"]);
    },
  );
  await t.step("a log that somebody changed on the disk is found out", async () => {
    const path = `${agent.dataDir}/proofs/${id}.jsonl`;
    const text = await Deno.readTextFile(path);
    // In place, so that the agent goes on writing behind it.
    const at = text.indexOf('"pids":') + '"pids":'.length;
    const digit = text[at];
    const put = (value: string) => patch(path, at, value);
    await put(digit === "9" ? "8" : "9");
    const verdict = await verify(agent, id);
    assert.deepEqual([verdict.code, verdict.result], [1, "INVALID"]);
    await put(digit);
    assert.equal((await verify(agent, id)).result, "VALID");
  });
  await t.step("stopped, it is still shown, verified and exported; metrics have counted", async () => {
    await agent.ok("stop", id, "--grace", "0");
    await until("the stop is proven", async () => (await entries(agent, id)).at(-1)!.body.kind === "stop");
    const last = (await entries(agent, id)).at(-1)!;
    assert.deepEqual([last.body.measured, last.body.exit_code], ["last", 137]);
    const verdict = await verify(agent, id);
    assert.deepEqual(
      [verdict.code, verdict.result, verdict.lastHash],
      [0, "VALID", last.hash],
      verdict.reason,
    );
    assert(verdict.cpuUs > 0 && verdict.cpuUs <= verdict.wallMs * 500 * 1.02 + 1e6, JSON.stringify(verdict));
    const metrics = await agent.curl("http://127.0.0.1:8001/metrics");
    for (
      const pattern of [
        /^ibrl_proof_generation_latency_ms_count [1-9]/m,
        /^ibrl_proof_aggregation_latency_ms_count [1-9]/m,
        /^ibrl_proof_verifications_total\{result="VALID"\} [1-9]/m,
        /^ibrl_proof_verification_failures 1/m,
        /^hypercore_proof_failures_total 0/m,
      ]
    ) assert.match(metrics, pattern);
    const missing = await agent.cli(["proof", "verify", "0123456789ab"]);
    assert.equal(missing.code, 1);
    assert.match(missing.err, /Cannot find proofs of workload "0123456789ab"/);
  });
});

async function patch(path: string, at: number, value: string): Promise<void> {
  using file = await Deno.open(path, { write: true });
  await file.seek(at, Deno.SeekMode.Start);
  await file.write(new TextEncoder().encode(value));
}
