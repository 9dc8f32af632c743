import assert from "node:assert/strict";
import { silentLog } from "../../runtime/log.ts";
import { memoryIdentity } from "../beacon/testing.ts";
import { canonicalJson } from "../canonical.ts";
import { entryLine, MAX_LINE_BYTES, type ProofEntry, signBody } from "./entry.ts";
import { ProofLog, readLines } from "./log_file.ts";
import { ProofLogs } from "./log_store.ts";
import { firstBody, followingBody, TEST_SPEC, testLog } from "./testing.ts";
import { verifyLines } from "./verifier.ts";

const identity = memoryIdentity();
const options = { identity, nowMs: 2_000_000 };

async function inTempDir(test: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await test(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** Adds proofs to a log, as a keeper does. */
async function extend(log: ProofLog, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const { tail } = log;
    const next = tail === undefined
      ? firstBody(identity.nodeId)
      : followingBody({ ...tail, key: "", signature: "" });
    const entry: ProofEntry = { ...signBody(next, identity), ...(tail === undefined && { spec: TEST_SPEC }) };
    await log.append(entry, options);
  }
}

const verdictOf = async (path: string) => verifyLines(await readLines(path), { claim: identity });

Deno.test("a log that is closed and opened again goes on where it was", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/a.jsonl`;
    const log = await ProofLog.open(path);
    assert.deepEqual([log.tail, log.size], [undefined, 0]);
    await extend(log, 3);
    const again = await ProofLog.open(path);
    assert.deepEqual([again.tail, again.newest, again.size], [log.tail, log.newest, log.size]);
    await extend(again, 2);
    const verdict = await verdictOf(path);
    assert(verdict.result === "VALID" && verdict.summary.count === 5);
    assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
  }));

Deno.test("wherever a crash tears the newest line, it is cut off and the chain goes on", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/a.jsonl`;
    const lines = testLog(identity, 3);
    const whole = new TextEncoder().encode(lines.map((line) => `${line}\n`).join(""));
    const start = whole.length - lines[2].length - 1;
    for (let end = start; end <= whole.length; end++) {
      await Deno.writeFile(path, whole.subarray(0, end));
      let torn = 0;
      const log = await ProofLog.open(path, { onTorn: (bytes) => torn += bytes });
      const isWhole = end === whole.length;
      assert.deepEqual([log.tail?.body.seq, torn], [isWhole ? 3 : 2, isWhole ? 0 : end - start], `at ${end}`);
      if (end % 50 !== 0) continue;
      await extend(log, 1);
      const verdict = await verdictOf(path);
      assert(verdict.result === "VALID" && verdict.summary.count === (isWhole ? 4 : 3), `at ${end}`);
    }
  }));

Deno.test("blocks that were never written, also in the very first line, are cut off", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/a.jsonl`;
    const text = testLog(identity, 2).map((line) => `${line}\n`).join("");
    for (const rest of ["\0".repeat(4096), "\0".repeat(100) + "\n", "{}\n", "\n\n", "{"]) {
      await Deno.writeTextFile(path, text + rest);
      assert.equal((await ProofLog.open(path)).tail?.body.seq, 2);
      assert.equal(await Deno.readTextFile(path), text);
      await Deno.writeTextFile(path, rest);
      assert.equal((await ProofLog.open(path)).tail, undefined);
      assert.equal(await Deno.readTextFile(path), "");
    }
  }));

Deno.test("a log that somebody changed is carried on and stays invalid at the place", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/a.jsonl`;
    const lines = testLog(identity, 3);
    const changed = JSON.parse(lines[2]);
    changed.body.cpu_us += 1;
    await Deno.writeTextFile(
      path,
      [...lines.slice(0, 2), canonicalJson(changed)].map((line) => `${line}\n`).join(""),
    );
    const log = await ProofLog.open(path);
    await extend(log, 2);
    const verdict = await verdictOf(path);
    assert.deepEqual(verdict.result === "INVALID" && [verdict.line, verdict.reason], [
      3,
      "its hash is not that of its body",
    ]);
  }));

Deno.test("a proof that cannot be written changes nothing", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/sub/a.jsonl`;
    await Deno.mkdir(`${dir}/sub`);
    const log = await ProofLog.open(path);
    await extend(log, 1);
    const { size, tail } = log;
    await Deno.rename(`${dir}/sub`, `${dir}/away`);
    await assert.rejects(extend(log, 1));
    assert.deepEqual([log.size, log.tail], [size, tail]);
    await Deno.rename(`${dir}/away`, `${dir}/sub`);
    const long = {
      ...signBody(followingBody({ ...tail!, key: "", signature: "" }), identity),
      spec: { a: "x".repeat(MAX_LINE_BYTES) },
    };
    await assert.rejects(log.append(long, options), /too long/);
    await extend(log, 1);
    assert.equal((await verdictOf(path)).result, "VALID");
  }));

Deno.test("what an append left on a full disk is overwritten by the next one", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/a.jsonl`;
    const log = await ProofLog.open(path);
    await extend(log, 2);
    await Deno.writeTextFile(path, '{"body":{"half', { append: true });
    await extend(log, 1);
    const verdict = await verdictOf(path);
    assert(verdict.result === "VALID" && verdict.summary.count === 3);
  }));

Deno.test("a log stays within its limit and valid, however long the workload runs", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/a.jsonl`;
    const maxBytes = 12_000;
    const log = await ProofLog.open(path, { maxBytes });
    for (let i = 0; i < 60; i++) {
      await extend(log, 1);
      assert((await Deno.stat(path)).size <= maxBytes);
      assert.equal(log.size, (await Deno.stat(path)).size);
    }
    const verdict = await verdictOf(path);
    assert(verdict.result === "VALID");
    assert.equal(verdict.summary.count + verdict.summary.dropped, 60);
    assert.equal((await ProofLog.open(path, { maxBytes })).tail?.body.seq, 60);
    assert.deepEqual([...Deno.readDirSync(dir)].map(({ name }) => name), ["a.jsonl"]);
  }));

Deno.test("a damaged log stays within its limit too, and invalid", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/a.jsonl`;
    const maxBytes = 12_000;
    await Deno.writeTextFile(path, ["{}", ...testLog(identity, 3)].map((line) => `${line}\n`).join(""));
    const log = await ProofLog.open(path, { maxBytes });
    for (let i = 0; i < 60; i++) {
      await extend(log, 1);
      assert((await Deno.stat(path)).size <= maxBytes);
    }
    assert.equal((await verdictOf(path)).result, "INVALID");
    assert.deepEqual([...Deno.readDirSync(dir)].map(({ name }) => name).sort(), [
      "a.jsonl",
      "a.jsonl.damaged",
    ]);
  }));

Deno.test("logs of stopped workloads go after their time, and the oldest when they are too much", () =>
  inTempDir(async (dir) => {
    const logs = new ProofLogs({ dir: `${dir}/proofs`, log: silentLog });
    assert.equal(await logs.sweep(new Set(), options), 0);
    for (const id of ["a", "b", "c", "d"]) await extend(await logs.open(id), 1);
    await Deno.writeTextFile(`${logs.dir}/d.jsonl.new`, "left by a crash");
    const nowMs = Date.now();
    for (const [id, ageMs] of [["a", 9_000], ["b", 5_000], ["c", 1_000]] as const) {
      await Deno.utime(`${logs.dir}/${id}.jsonl`, new Date(nowMs - ageMs), new Date(nowMs - ageMs));
    }
    assert.deepEqual((await logs.ids()).sort(), ["a", "b", "c", "d"]);
    assert.equal(await logs.sweep(new Set(["a", "d"]), { nowMs, retentionMs: 4_000 }), 1);
    assert.deepEqual((await logs.ids()).sort(), ["a", "c", "d"]);
    const { size } = await Deno.stat(`${logs.dir}/c.jsonl`);
    assert.equal(await logs.sweep(new Set(["d"]), { nowMs, maxBytes: size }), 1);
    assert.deepEqual((await logs.ids()).sort(), ["c", "d"]);
    assert.equal(await logs.sweep(new Set(), { nowMs: nowMs + 1e9 }), 3);
    assert.deepEqual(await logs.lines("c"), []);
  }));

Deno.test("what is no id never becomes a path", () =>
  inTempDir(async (dir) => {
    const logs = new ProofLogs({ dir, log: silentLog });
    for (const id of ["", "..", "../x", "a/b", "a\0", "x".repeat(77)]) {
      await assert.rejects(logs.open(id), /no workload id/);
      await assert.rejects(logs.lines(id), /no workload id/);
    }
    assert.equal(entryLine(signBody(firstBody(identity.nodeId), identity)).includes("\n"), false);
  }));
