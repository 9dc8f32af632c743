import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { type Tombstone, TombstoneSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { MAX_TOMBSTONES, TOMBSTONE_MS } from "./limits.ts";
import { Tombstones } from "./tombstones.ts";

const NOW_MS = 1_700_000_000_000;

function tombstone(id: string, init: { generation?: bigint; stoppedAtMs?: number } = {}): Tombstone {
  const { generation = 1n, stoppedAtMs = NOW_MS } = init;
  return create(TombstoneSchema, { id, generation, stoppedAtMs: BigInt(stoppedAtMs) });
}

Deno.test("a tombstone is taken once; a higher generation and this node's own word add to it", () => {
  const all = new Tombstones();
  assert.equal(all.add(tombstone("a"), { wallMs: NOW_MS, isOwn: false }), true);
  assert.equal(all.add(tombstone("a"), { wallMs: NOW_MS, isOwn: false }), false);
  assert.equal(all.add(tombstone("a", { generation: 3n }), { wallMs: NOW_MS, isOwn: false }), true);
  assert.equal(all.add(tombstone("a"), { wallMs: NOW_MS, isOwn: true }), true);
  assert.deepEqual([all.get("a")!.tombstone.generation, all.get("a")!.isOwn, all.own().length], [
    3n,
    true,
    1,
  ]);
  assert.equal(all.add(tombstone("", {}), { wallMs: NOW_MS, isOwn: true }), false);
});

Deno.test("tombstones expire after a day, those from a clock that is ahead as well", () => {
  const all = new Tombstones();
  all.add(tombstone("a"), { wallMs: NOW_MS, isOwn: false });
  all.add(tombstone("b", { stoppedAtMs: NOW_MS + 9 * TOMBSTONE_MS }), { wallMs: NOW_MS, isOwn: false });
  assert.equal(all.expire(NOW_MS + TOMBSTONE_MS - 1), false);
  assert.equal(all.size, 2);
  assert.equal(all.expire(NOW_MS + TOMBSTONE_MS + 60_000), true);
  assert.equal(all.size, 0);
  assert.equal(all.add(tombstone("a"), { wallMs: NOW_MS + TOMBSTONE_MS, isOwn: false }), false);
});

Deno.test("rule 8: there are no more tombstones than the limit; the oldest give way", () => {
  const all = new Tombstones();
  for (let i = 0; i <= MAX_TOMBSTONES; i++) all.add(tombstone(`t${i}`), { wallMs: NOW_MS, isOwn: false });
  assert.equal(all.size, MAX_TOMBSTONES);
  assert.deepEqual([all.has("t0"), all.has("t1")], [false, true]);
});

Deno.test("tombstones outlive the agent on disk; what is no tombstone file is refused by name", () => {
  const all = new Tombstones();
  all.add(tombstone("a", { generation: 9n }), { wallMs: NOW_MS, isOwn: true });
  all.add(tombstone("b"), { wallMs: NOW_MS, isOwn: false });
  const again = new Tombstones();
  again.load(all.serialise(), NOW_MS);
  assert.deepEqual([again.get("a"), again.get("b")], [all.get("a"), all.get("b")]);
  const late = new Tombstones();
  late.load(all.serialise(), NOW_MS + TOMBSTONE_MS);
  assert.equal(late.size, 0);
  for (
    const text of [
      "",
      "{}",
      '{"version":1,"tombstones":[[1,2]]}',
      '{"version":1,"tombstones":[["a","x",1,0]]}',
    ]
  ) {
    assert.throws(() => new Tombstones().load(text, NOW_MS), /^Error: Cannot read the tombstones: /);
  }
});
