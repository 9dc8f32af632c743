import assert from "node:assert/strict";
import { memoryIdentity } from "../beacon/testing.ts";
import { canonicalJson } from "../canonical.ts";
import type { ProofBody } from "./body.ts";
import { compact } from "./compact.ts";
import { CPU_TOLERANCE_US } from "./consistency.ts";
import { entryLine, foldHash, peekLine, type ProofEntry, signBody } from "./entry.ts";
import { followingBody, testLog } from "./testing.ts";
import { verifyLines } from "./verifier.ts";

const identity = memoryIdentity();
const other = memoryIdentity();
const verify = (lines: string[], options = {}) => verifyLines(lines, { claim: identity, ...options });
const reasonOf = (lines: string[], options = {}) => {
  const verdict = verify(lines, options);
  return verdict.result === "VALID" ? "VALID" : verdict.reason;
};

Deno.test("a genuine log is valid, and its sums are known", () => {
  const verdict = verify(testLog(identity, 5), { workload: "00000000000a" });
  assert(verdict.result === "VALID");
  const { count, dropped, cpuUs, wallMs } = verdict.summary;
  assert.deepEqual({ count, dropped, cpuUs, wallMs }, {
    count: 5,
    dropped: 0,
    cpuUs: 80_000_000,
    wallMs: 240_000,
  });
});

Deno.test("without proofs, or without the node's key, nothing can be said", () => {
  assert.equal(verify([]).result, "UNKNOWN");
  assert.equal(verifyLines(testLog(identity, 2), {}).result, "UNKNOWN");
  assert.equal(
    reasonOf(testLog(identity, 2), { wantedHash: "0".repeat(64) }),
    "no proof that is kept has this hash",
  );
});

Deno.test("each field that is changed, left out or added makes the log invalid, and names the place", () => {
  const lines = testLog(identity, 3);
  assert.equal(verify(lines).result, "VALID");
  const foreign = peekLine(testLog(other, 3, () => ({ workload: "00000000000b", image: "x:1" }))[1])!;
  for (const which of [0, 1, 2]) {
    const entry = JSON.parse(lines[which]);
    const refused = (changed: unknown, what: string) => {
      const verdict = verify(lines.with(which, canonicalJson(changed as never)));
      assert.equal(verdict.result, "INVALID", what);
      assert.equal((verdict as { line?: number }).line, which + 1, what);
    };
    for (const [field, value] of Object.entries(entry.body)) {
      const changed = typeof value === "number"
        ? value + 1
        : (foreign.body as never)[field] === value
        ? `${value}x`
        : (foreign.body as never)[field];
      refused({ ...entry, body: { ...entry.body, [field]: changed } }, `body.${field}`);
      const { [field]: _, ...rest } = entry.body;
      refused({ ...entry, body: rest }, `body without ${field}`);
    }
    for (const field of ["hash", "key", "signature"] as const) {
      refused({ ...entry, [field]: foreign[field] }, field);
      const { [field]: _, ...rest } = entry;
      refused(rest, `without ${field}`);
    }
    refused({ ...entry, body: { ...entry.body, more: 1 } }, "a field more");
    refused({ ...entry, more: 1 }, "a field more");
    refused({ ...entry, spec: { image: "web:2" } }, "spec");
  }
});

Deno.test("each bit of a log that is flipped makes it invalid", () => {
  const text = compact(testLog(identity, 6), { identity, nowMs: 2_000_000, keptBytes: 1_500 }).join("\n");
  const bytes = new TextEncoder().encode(text);
  assert.equal(verify(text.split("\n")).result, "VALID");
  for (let i = 0; i < bytes.length; i++) {
    // One bit of each byte, all eight in turn.
    bytes[i] ^= 1 << (i % 8);
    assert.notEqual(verify(new TextDecoder().decode(bytes).split("\n")).result, "VALID", `byte ${i}`);
    bytes[i] ^= 1 << (i % 8);
  }
});

Deno.test("a proof that is left out, doubled, moved or taken from another log breaks the chain", () => {
  const lines = testLog(identity, 5);
  assert.match(reasonOf(lines.toSpliced(2, 1)), /number 4 where 3 was due/);
  assert.match(reasonOf(lines.toSpliced(2, 0, lines[1])), /number 2 where 3 was due/);
  assert.match(reasonOf(lines.slice(1)), /number 2 where 1 was due/);
  assert.match(reasonOf([lines[0], lines[2], lines[1]]), /number 3 where 2 was due/);
  const fork = testLog(identity, 5, (seq) => seq === 2 ? { pids: 9 } : {});
  assert.match(reasonOf([...lines.slice(0, 2), ...fork.slice(2)]), /does not follow from the proof before/);
  assert.match(reasonOf(lines, { lastHash: peekLine(lines[3])!.hash }), /does not end with the newest proof/);
  assert.match(reasonOf(lines.slice(0, 3), { toldHash: peekLine(lines[3])!.hash }), /told of is not in it/);
  assert.equal(reasonOf(lines, { toldHash: peekLine(lines[3])!.hash }), "VALID");
  assert.equal(reasonOf(lines.slice(0, 4), { lastHash: peekLine(lines[3])!.hash }), "VALID");
});

Deno.test("a log is valid for its own node and its own workload only", () => {
  const lines = testLog(identity, 2);
  assert.match(reasonOf(lines, { claim: other }), /signed by a key that is not the node's/);
  assert.match(reasonOf(lines, { workload: "00000000000b" }), /of another workload/);
  const claim = { nodeId: other.nodeId, publicKey: identity.publicKey, rotations: [] };
  assert.match(reasonOf(lines, { claim }), /identity does not hold: its id does not belong to its first key/);
});

Deno.test("proofs before and after a rotation are valid; none by a key that was given up", async () => {
  const node = memoryIdentity();
  const before = peekLine(testLog(node, 1)[0]) as ProofEntry;
  const second = signBody(followingBody(before), node);
  const late = followingBody(second);
  const byOldKey = signBody(late, node);
  await node.rotate(1);
  const third = signBody(late, node);
  const verify = (...entries: ProofEntry[]) => verifyLines(entries.map(entryLine), { claim: node });
  assert.equal(verify(before, second, third).result, "VALID");
  assert.equal(verify(before, second, byOldKey).result, "VALID");
  const fourth = signBody(followingBody(third), node);
  assert.equal(verify(before, second, third, fourth).result, "VALID");
  const verdict = verifyLines(
    [before, second, third].map(entryLine).concat(entryLine(byOldKey)),
    { claim: node },
  );
  assert.match(verdict.result === "INVALID" ? verdict.reason : "", /given up/);
  // Who knows the rotation only by half does not take the new key.
  assert.equal(
    verifyLines([entryLine(before), entryLine(second), entryLine(third)], {
      claim: {
        nodeId: node.nodeId,
        publicKey: before.key === third.key ? node.publicKey : Uint8Array.fromBase64(before.key),
        rotations: [],
      },
    }).result,
    "INVALID",
  );
});

Deno.test("what the node itself signed is refused when it cannot be", () => {
  const cases: [RegExp, (seq: number) => Partial<ProofBody>][] = [
    [/at_ms is lower than before/, (seq) => seq === 3 ? { at_ms: 1_000_001 } : {}],
    [/wall_ms is lower than before/, (seq) => seq === 3 ? { wall_ms: 59_999, cpu_us: 20_000_000 } : {}],
    [/cpu_us is lower than before/, (seq) => seq === 3 ? { cpu_us: 19_999_999 } : {}],
    [/io_write_bytes is lower than before/, (seq) => seq === 3 ? { io_write_bytes: 1 } : {}],
    [/memory_peak_bytes is lower than before/, (seq) => seq === 3 ? { memory_peak_bytes: 1_999 } : {}],
    [
      /generation is lower than before/,
      (seq) => seq === 1 ? { generation: 2 } : seq === 3 ? { generation: 1 } : {},
    ],
    [
      /restarts is lower than before/,
      (seq) => seq === 2 ? { restarts: 1 } : seq === 3 ? { restarts: 0 } : {},
    ],
    [/another run has the same generation/, (seq) => seq === 3 ? { started_at_ms: 1_000_001 } : {}],
    [
      /image_digest is not as the workload was spawned/,
      (seq) => seq === 3 ? { image_digest: "sha256:2" } : {},
    ],
    [/spec_hash is not as/, (seq) => seq === 3 ? { spec_hash: "2".repeat(64) } : {}],
    [/milli_cpus is not as/, (seq) => seq === 3 ? { milli_cpus: 501 } : {}],
    [/follows the end of the workload/, (seq) => seq === 2 ? { kind: "stop" } : {}],
    [/memory_bytes is beyond its peak/, (seq) => seq === 3 ? { memory_bytes: 2_001 } : {}],
    [
      /more than 0.5 CPUs can give in 120000 ms/,
      (seq) => seq === 3 ? { cpu_us: 61_200_001 + CPU_TOLERANCE_US } : {},
    ],
    [
      /grew by more than 0.5 CPUs can give in 60000 ms/,
      (seq) => seq === 3 ? { cpu_us: 50_600_001 + CPU_TOLERANCE_US } : {},
    ],
  ];
  for (const [reason, change] of cases) {
    const verdict = verify(testLog(identity, 4, change));
    assert.match(verdict.result === "INVALID" ? verdict.reason : "VALID", reason);
    assert.equal(verdict.result === "INVALID" && verdict.seq, 3);
  }
});

Deno.test("a workload that was stopped may come back from another node, of a newer image, as a new run", () => {
  const back = { generation: 5, started_at_ms: 1_100_000, wall_ms: 1, cpu_us: 1, image_digest: "sha256:2" };
  const log = (fields: Partial<ProofBody>) =>
    testLog(
      identity,
      3,
      (seq) =>
        seq === 2
          ? { kind: "stop" }
          : seq === 3
          ? { cpu_user_us: 0, cpu_kernel_us: 0, io_write_bytes: 0, ...fields }
          : {},
    );
  assert.equal(reasonOf(log(back)), "VALID");
  assert.match(reasonOf(log({ ...back, generation: 1 })), /follows the end of the workload/);
});

Deno.test("a restart begins the figures anew", () => {
  const fresh = { generation: 2, restarts: 1, started_at_ms: 1_100_000, wall_ms: 10, cpu_us: 5 };
  const verdict = verify(
    testLog(
      identity,
      4,
      (seq) => seq === 3 ? { ...fresh, cpu_user_us: 1, cpu_kernel_us: 1, io_write_bytes: 0 } : {},
    ),
  );
  assert(verdict.result === "VALID", JSON.stringify(verdict));
  assert.deepEqual([verdict.summary.cpuUs, verdict.summary.wallMs], [40_000_005, 120_010]);
});

Deno.test("a checkpoint stands for what was dropped, again and again, and nothing else passes for one", () => {
  const whole = testLog(identity, 40);
  const options = { identity, nowMs: 9_000_000, keptBytes: 5_000 };
  const once = compact(whole.slice(0, 20), options);
  const twice = compact([...once, ...whole.slice(20)], options);
  for (const lines of [once, twice]) {
    assert(lines.length < 8 && lines[0] === whole[0]);
    assert.equal(verify(lines).result, "VALID");
  }
  const verdict = verify(twice);
  assert(verdict.result === "VALID");
  assert.equal(verdict.summary.dropped + verdict.summary.count, 40);
  const { from_seq, to_seq, dropped } = JSON.parse(twice[1]).body;
  assert.equal(from_seq, 2);
  const hashes = whole.slice(1, to_seq).map((line) => peekLine(line)!.hash);
  assert.equal(dropped, hashes.reduce(foldHash, "0".repeat(64)));

  assert.match(reasonOf([twice[0], ...twice.slice(2)]), /where 2 was due/);
  assert.match(reasonOf([...twice.slice(0, 2), ...twice.slice(3)]), /was due/);
  assert.match(reasonOf([twice[0], twice[1], twice[1], ...twice.slice(2)]), /elsewhere than after the first/);
  assert.match(reasonOf([...twice, twice[1]]), /elsewhere than after the first/);
  assert.match(reasonOf([twice[1], ...twice.slice(2)]), /elsewhere than after the first/);
  assert.match(reasonOf(twice.slice(0, 2)), /nothing follows the checkpoint/);
  assert.match(reasonOf([twice[0], once[1], ...twice.slice(2)]), /was due/);
  const forged = signBody(JSON.parse(twice[1]).body, other);
  assert.match(reasonOf([twice[0], entryLine(forged), ...twice.slice(2)]), /not the node's/);
});

Deno.test("a log that is short, or that nobody understands, is not compacted", () => {
  const lines = testLog(identity, 3);
  const options = { identity, nowMs: 1 };
  assert.deepEqual(compact(lines, options), lines);
  assert.deepEqual(compact([], options), []);
  const damaged = [...testLog(identity, 30), "{"];
  assert.deepEqual(compact(damaged, { ...options, keptBytes: 100 }), damaged);
  const kept = compact(testLog(identity, 3), { ...options, keptBytes: 1 });
  assert.equal(kept.length, 3);
  assert.equal(verify(kept).result, "VALID");
});
