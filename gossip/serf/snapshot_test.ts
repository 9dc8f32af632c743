import assert from "node:assert/strict";
import type { MemberInfo } from "./member.ts";
import { replaySnapshot, SnapshotLog } from "./snapshot.ts";

function member(name: string, host = "10.0.0.1", port = 7946): MemberInfo {
  return { name, host, port, tags: new Map(), status: "alive", incarnation: 1, versions: [] };
}

Deno.test("a snapshot of Serf's is read: names with spaces, addresses, clocks, comments, coordinates and a torn last line", () => {
  const { alive, clocks } = replaySnapshot(`# made by hand
alive: foo 127.0.0.1:5000
alive: bar baz 127.0.0.1:6000
alive: six [fd00::1]:7946
not-alive: foo
coordinate: {"Vec":[0],"Error":1.5}
clock: 3
event-clock: 40
query-clock: 500
alive: to`);
  assert.deepEqual([...alive], [["bar baz", "127.0.0.1:6000"], ["six", "[fd00::1]:7946"]]);
  assert.deepEqual(clocks, { member: 3, event: 40, query: 500 });
});

Deno.test("a leave forgets what was before, unless rejoining is wished", () => {
  const text = "alive: a 10.0.0.1:1\nclock: 9\nleave\n";
  assert.deepEqual(replaySnapshot(text), { alive: new Map(), clocks: { member: 0, event: 0, query: 0 } });
  assert.deepEqual([...replaySnapshot(text, { rejoinAfterLeave: true }).alive.keys()], ["a"]);
});

Deno.test("what happened is written so that it is read again, and clocks only where they moved", () => {
  const log = new SnapshotLog(replaySnapshot(""), 0);
  let text = log.event({ kind: "member-join", members: [member("a"), member("b c", "fd00::2")] });
  text += log.event({ kind: "member-failed", members: [member("a")] });
  text += log.clocks({ member: 5, event: 1, query: 1 });
  assert.equal(log.clocks({ member: 5, event: 1, query: 1 }), "");
  assert.equal(text, "alive: a 10.0.0.1:7946\nalive: b c [fd00::2]:7946\nnot-alive: a\nclock: 4\n");
  const replay = replaySnapshot(text);
  assert.deepEqual([[...replay.alive], replay.clocks.member], [[["b c", "[fd00::2]:7946"]], 4]);
});

Deno.test("a snapshot that has grown is written anew, with what counts, and then grows again", () => {
  const log = new SnapshotLog(replaySnapshot("event-clock: 7\n"), 15);
  log.event({ kind: "member-join", members: [member("stays")] });
  let bytes = 0;
  while (!log.wantsCompaction) {
    bytes += log.event({ kind: "member-join", members: [member("flaps")] }).length;
    bytes += log.event({ kind: "member-failed", members: [member("flaps")] }).length;
  }
  assert.ok(bytes >= 128 * 1024 - 64 && bytes <= 129 * 1024);
  const text = log.compact();
  assert.equal(text, "alive: stays 10.0.0.1:7946\nclock: 0\nevent-clock: 7\nquery-clock: 0\n");
  assert.equal(log.wantsCompaction, false);
});

Deno.test("a snapshot of many members may be larger before it is written anew", () => {
  const log = new SnapshotLog(replaySnapshot(""), 0);
  const members = Array.from(
    { length: 4_000 },
    (_, i) => member(`node-with-a-long-name-${i}`.padEnd(50, "x")),
  );
  log.event({ kind: "member-join", members });
  assert.equal(log.wantsCompaction, false, "4,000 living members allow for 1,000 KiB");
});
