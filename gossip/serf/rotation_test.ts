import assert from "node:assert/strict";
import { Keyring, MAX_RETIRED } from "../codec/keyring.ts";
import { encodePushPull } from "../codec/push_pull.ts";
import { sealRing } from "../codec/sealed_ring.ts";
import { encodeKeyRequest } from "../codec/serf_internal.ts";
import { emptySerfPushPull, encodeSerfPushPull } from "../codec/serf_push_pull.ts";
import { seededRandom } from "../random.ts";
import { Bench } from "../testing.ts";
import type { KeyOperation } from "./key_queries.ts";

const random = seededRandom(5);
const OLD = key(1);
const NEW = key(2);

function key(fill: number): Uint8Array {
  return new Uint8Array(32).fill(fill);
}

/** Members with one key, joined to the first. */
function cluster(names: readonly string[], options: Parameters<Bench["add"]>[2] = {}) {
  const bench = new Bench();
  const rings = new Map<string, Keyring>();
  for (const [i, name] of names.entries()) {
    const keyring = new Keyring([OLD]);
    rings.set(name, keyring);
    bench.add(name, 1000 + i, { keyring, ...options });
    if (i > 0) assert.equal(bench.join(name, names[0]), undefined);
  }
  bench.advance(1_000);
  return { bench, rings };
}

function operate(bench: Bench, node: string, operation: KeyOperation, of: Uint8Array): void {
  bench.cores.get(node)!.query(bench.nowMs, `_serf_${operation}`, encodeKeyRequest(of), {
    handler: { onDone() {} },
  });
  bench.advance(2_000);
}

/** A whole rotation: the old key is gone afterwards. */
function rotate(bench: Bench, node: string, from: Uint8Array, to: Uint8Array): void {
  operate(bench, node, "install-key", to);
  operate(bench, node, "use-key", to);
  operate(bench, node, "remove-key", from);
}

function alive(bench: Bench, observer: string, name: string): boolean {
  return bench.cores.get(observer)!.members.get(name)?.snapshot().status === "alive";
}

function allSeeAll(bench: Bench): boolean {
  return [...bench.cores.keys()].every((a) => [...bench.cores.keys()].every((b) => alive(bench, a, b)));
}

Deno.test("a rotation that is not over yet reaches a node that was away, by push/pull", () => {
  const { bench, rings } = cluster(["a", "b", "c"]);
  bench.cut("c");
  bench.advance(1_000);
  operate(bench, "a", "install-key", NEW);
  operate(bench, "a", "use-key", NEW);
  bench.cut("c", false);
  bench.advance(120_000);
  assert.deepEqual(rings.get("c")!.keys(), [NEW, OLD]);
  assert.ok(allSeeAll(bench));
});

Deno.test("a node that slept through a whole rotation gets in again, and hears nothing under the old key before", () => {
  const { bench, rings } = cluster(["a", "b", "c"]);
  bench.cut("c");
  bench.advance(60_000);
  rotate(bench, "a", OLD, NEW);
  assert.deepEqual(rings.get("b")!.keys(), [NEW]);
  bench.cut("c", false);
  bench.advance(180_000);
  assert.deepEqual([rings.get("c")!.keys(), rings.get("c")!.retired()], [[NEW], [OLD]]);
  assert.ok(allSeeAll(bench));
});

Deno.test("a node that slept through several rotations, and longer than anyone lists it, gets in again", () => {
  const { bench, rings } = cluster(["a", "b", "c"], {
    serf: { reconnectTimeoutMs: 60_000, tombstoneTimeoutMs: 60_000 },
  });
  bench.cut("c");
  bench.advance(60_000);
  rotate(bench, "a", OLD, NEW);
  rotate(bench, "b", NEW, key(3));
  bench.advance(2 * 3_600_000);
  assert.equal(bench.cores.get("a")!.members.get("c"), undefined, "it is long forgotten");
  bench.cut("c", false);
  bench.advance(300_000);
  assert.deepEqual(rings.get("c")!.keys(), [key(3)]);
  assert.ok(allSeeAll(bench));
});

Deno.test("halves that rotated each on its own settle on one key", () => {
  const { bench, rings } = cluster(["a", "b", "c", "d"]);
  const halves = new Bench();
  for (const name of ["c", "d"]) {
    halves.cores.set(name, bench.cores.get(name)!);
    halves.events.set(name, []);
    bench.cores.delete(name);
  }
  halves.nowMs = bench.nowMs;
  for (const half of [bench, halves]) half.advance(60_000);
  rotate(bench, "a", OLD, NEW);
  rotate(halves, "c", OLD, key(3));
  for (const name of ["c", "d"]) bench.cores.set(name, halves.cores.get(name)!);
  bench.advance(300_000);
  const [ring] = rings.values();
  for (const [name, other] of rings) assert.deepEqual(other.keys(), ring.keys(), name);
  assert.ok(allSeeAll(bench));
});

Deno.test("a thief of a removed key learns nothing, not even with the name of a member", () => {
  const { bench } = cluster(["a", "b"]);
  rotate(bench, "a", OLD, NEW);
  const thief = bench.add("b2", 2000, { keyring: new Keyring([OLD]) });
  assert.match(bench.join("b2", "a")!, /no key of the ring opens it/);
  const { memberlist } = bench.cores.get("a")!;
  for (const from of ["b", "b2", "nobody"]) {
    const state = encodeSerfPushPull({ ...emptySerfPushPull(), ltime: 99_999, from });
    const nodes = [{ ...thief.memberlist.self.toAlive(), state: 0 as const }];
    const plain = encodePushPull({ join: true, nodes, userState: state });
    const request = thief.memberlist.streamCodec.seal(plain, { dialing: true });
    const message = memberlist.streamCodec.reader({ accepted: true }).push(request)!;
    memberlist.receiveStream(bench.nowMs, 7, message);
    const [answer] = memberlist.takeEffects().filter((effect) => effect.kind === "answer");
    assert.ok(answer.bytes !== undefined);
    const { streamCodec } = thief.memberlist;
    try {
      const reply = streamCodec.reader({ accepted: false }).push(answer.bytes)!;
      assert.ok(reply.kind === "pushPull" && reply.message.nodes.length === 0 && from === "b");
      const text = new TextDecoder("latin1").decode(reply.message.userState);
      assert.equal(text.includes(new TextDecoder("latin1").decode(NEW)), false, "the key is not in the open");
    } catch (error) {
      assert.match(String(error), /no key of the ring opens it/);
    }
  }
  assert.equal(memberlist.node("b2"), undefined, "nothing that it said was believed");
  assert.ok(bench.cores.get("a")!.clocks.member < 99_999);
});

Deno.test("a thief of a removed key who answers a member's knock cannot slip it a ring", () => {
  const { bench, rings } = cluster(["a", "b"]);
  rotate(bench, "a", OLD, NEW);
  bench.cut("b");
  bench.advance(60_000);
  const a = bench.cores.get("a")!;
  const secret = random.bytes(32);
  const to = Uint8Array.fromBase64(a.members.get("a")!.tags.get("rejoin")!, { alphabet: "base64url" });
  const sealedRing = sealRing({ version: 1_000_000, keys: [key(9)], retired: [] }, { to, secret, random });
  a.memberlist.pushPull(bench.cores.get("b")!.memberlist.self.endpoint, { join: true }, () => {});
  for (let rounds = 0; rounds < 4; rounds++) {
    for (const effect of a.memberlist.takeEffects()) {
      if (effect.kind !== "dial") continue;
      const thief = new Keyring([OLD]);
      const bytes = encodePushPull({
        join: false,
        nodes: [],
        userState: encodeSerfPushPull({ ...emptySerfPushPull(), from: "b", sealedRing }),
      });
      const codec = new Bench().add("x", 1, { keyring: thief }).memberlist.streamCodec;
      try {
        codec.reader({ accepted: true }).push(effect.request);
        const message = a.memberlist.streamCodec.reader({ accepted: false })
          .push(codec.seal(bytes, { dialing: false }));
        a.memberlist.dialed(bench.nowMs, effect.id, { message });
      } catch {
        a.memberlist.dialed(bench.nowMs, effect.id, { error: "cannot be read", refused: true });
      }
    }
  }
  assert.deepEqual(rings.get("a")!.keys(), [NEW]);
});

Deno.test("a pruned member is out: its old key opens nothing any more", () => {
  const { bench, rings } = cluster(["a", "b", "c"]);
  bench.cut("c");
  bench.advance(60_000);
  bench.cores.get("a")!.forceLeave(bench.nowMs, "c", { prune: true }, () => {});
  bench.advance(10_000);
  rotate(bench, "a", OLD, NEW);
  bench.cut("c", false);
  bench.advance(180_000);
  assert.deepEqual(rings.get("c")!.keys(), [OLD]);
  assert.equal(alive(bench, "a", "c"), false);
});

Deno.test("rings sealed for latecomers are rationed", () => {
  const { bench } = cluster(["a", "b"]);
  const { keys, members } = bench.cores.get("a")!;
  const seal = (nowMs: number) => keys.sealFor("b", { member: members.get("b"), nowMs }) !== undefined;
  const sealed = Array.from({ length: 40 }, () => seal(bench.nowMs)).filter(Boolean).length;
  assert.equal(sealed, 16);
  assert.equal(seal(bench.nowMs + 1_000), true);
});

Deno.test("a key ring remembers the last removed keys, and takes one back where it is installed again", () => {
  const ring = new Keyring([key(0)]);
  for (let i = 1; i <= MAX_RETIRED + 3; i++) {
    ring.install(key(i));
    ring.use(key(i));
    ring.remove(key(i - 1));
  }
  assert.equal(ring.retired().length, MAX_RETIRED);
  assert.deepEqual(ring.retired()[0], key(MAX_RETIRED + 2));
  ring.install(key(MAX_RETIRED + 2));
  assert.equal(ring.retired().some((retired) => retired[0] === MAX_RETIRED + 2), false);
  const sealed = new Keyring([key(MAX_RETIRED)]).seal(new Uint8Array([1]), { nonce: random.bytes(12) });
  assert.equal(ring.open(sealed), undefined);
  assert.equal(ring.open(sealed, { retired: true })?.retired, true);
});
