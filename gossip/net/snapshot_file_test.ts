import assert from "node:assert/strict";
import { silentLog } from "../log.ts";
import type { MemberInfo } from "../serf/member.ts";
import { SnapshotFile } from "./snapshot_file.ts";

function member(name: string): MemberInfo {
  return { name, host: "10.0.0.1", port: 1, tags: new Map(), status: "alive", incarnation: 1, versions: [] };
}

async function withFile(use: (path: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await use(`${dir}/snapshot`);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** Opens a file whose flushes the test calls for. */
async function open(path: string): Promise<{ file: SnapshotFile; flush: () => void }> {
  let due: (() => void) | undefined;
  const clock = {
    now: () => 0,
    after(_delayMs: number, run: () => void) {
      due = run;
      return () => due = undefined;
    },
  };
  const read = await SnapshotFile.read(path, {});
  const readClocks = () => ({ member: 2, event: 3, query: 4 });
  const file = SnapshotFile.open({ path, ...read, clock, log: silentLog, readClocks });
  return { file, flush: () => due?.() };
}

Deno.test("a snapshot file keeps what happened over lives, readable by its owner alone", async () => {
  await withFile(async (path) => {
    const first = await open(path);
    first.file.event({ kind: "member-join", members: [member("a"), member("b")] });
    first.flush();
    first.file.event({ kind: "member-failed", members: [member("b")] });
    await first.file[Symbol.asyncDispose]();
    const { replay } = await SnapshotFile.read(path, {});
    assert.deepEqual([[...replay.alive.keys()], replay.clocks], [["a"], { member: 1, event: 2, query: 3 }]);
    assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
    const second = await open(path);
    await second.file.leave();
    await second.file[Symbol.asyncDispose]();
    assert.equal((await SnapshotFile.read(path, {})).replay.alive.size, 0);
    assert.deepEqual([...(await SnapshotFile.read(path, { rejoinAfterLeave: true })).replay.alive.keys()], [
      "a",
    ]);
  });
});

Deno.test("a snapshot file that has grown is replaced by a short one that says the same", async () => {
  await withFile(async (path) => {
    const { file, flush } = await open(path);
    file.event({ kind: "member-join", members: [member("stays")] });
    for (let i = 0; i < 4_000; i++) {
      file.event({ kind: "member-join", members: [member("flaps")] });
      file.event({ kind: "member-failed", members: [member("flaps")] });
    }
    flush();
    await file[Symbol.asyncDispose]();
    const { replay, bytes } = await SnapshotFile.read(path, {});
    assert.deepEqual([[...replay.alive.keys()], bytes < 200], [["stays"], true]);
    await assert.rejects(() => Deno.stat(`${path}.compact`), Deno.errors.NotFound);
  });
});

Deno.test("a snapshot that is too large is refused with its size", async () => {
  await withFile(async (path) => {
    using file = await Deno.open(path, { create: true, write: true });
    await file.truncate(65 * 1024 * 1024);
    await assert.rejects(
      () => SnapshotFile.read(path, {}),
      /Cannot read snapshot ".*": it has 68157440 bytes, the limit is 67108864/,
    );
  });
});
