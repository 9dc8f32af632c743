import assert from "node:assert/strict";
import { PrivateKey } from "./identity.ts";
import { FileIdentity } from "./identity_file.ts";
import { PinnedPeers } from "./identity_pins.ts";

const fresh = () => FileIdentity.parse(PrivateKey.generate().pem());
const refusal = (verdict: ReturnType<PinnedPeers["accept"]>) =>
  verdict.accepted ? "accepted" : verdict.reason;

Deno.test("the first key seen for an id is pinned and another one is refused", () => {
  const pins = new PinnedPeers();
  const peer = fresh();
  assert.deepEqual(pins.accept(peer, 1), { accepted: true, change: "new" });
  assert.deepEqual(pins.accept(peer, 2), { accepted: true, change: "none" });
  assert.match(
    refusal(pins.accept({ ...peer, publicKey: fresh().publicKey, nodeId: peer.nodeId, rotations: [] }, 3)),
    /id does not belong/,
  );
  assert.equal(pins.get(peer.nodeId)?.seenAtMs, 2);
});

Deno.test("a rotation moves the pin on; the key it left, and a second history, are refused", () => {
  const pins = new PinnedPeers();
  const first = fresh();
  const second = first.rotated(PrivateKey.generate(), 1);
  const third = second.rotated(PrivateKey.generate(), 2);
  const fork = first.rotated(PrivateKey.generate(), 3);
  assert(pins.accept(first, 0).accepted);
  assert.deepEqual(pins.accept(second, 1), { accepted: true, change: "rotated" });
  assert.match(refusal(pins.accept(first, 2)), /rotated away/);
  assert.match(refusal(pins.accept(fork, 2)), /rotated away/);
  assert.match(
    refusal(pins.accept(fork.rotated(PrivateKey.generate(), 4), 2)),
    /do not lead from the pinned key/,
  );
  assert.deepEqual(pins.accept(third, 3), { accepted: true, change: "rotated" });
  assert.match(refusal(pins.accept(second, 4)), /rotated away/);
});

Deno.test("pins survive a restart, also a rotation", () => {
  const pins = new PinnedPeers();
  const [a, b] = [fresh(), fresh().rotated(PrivateKey.generate(), 1)];
  pins.accept(a, 1);
  pins.accept(b, 2);
  const again = new PinnedPeers();
  const dump = JSON.parse(JSON.stringify(pins.dump()));
  assert.deepEqual(
    again.load([...dump, {}, null, { ...dump[0], node_id: "../x" }, { ...dump[0], public_key: "AA" }]),
    { unreadable: 4 },
  );
  assert.deepEqual(again.dump(), pins.dump());
  assert(again.accept(b, 3).accepted);
  assert.match(
    refusal(again.accept({ nodeId: b.nodeId, publicKey: fresh().publicKey, rotations: [] }, 3)),
    /id does not belong/,
  );
});

Deno.test("at the limit the longest unseen that never rotated is forgotten", () => {
  const pins = new PinnedPeers({ limit: 2 });
  const [rotated, plain, late] = [fresh().rotated(PrivateKey.generate(), 1), fresh(), fresh()];
  for (const [i, peer] of [rotated, plain, late].entries()) pins.accept(peer, i);
  assert.equal(pins.size, 2);
  assert.equal(pins.get(plain.nodeId), undefined);
  assert.notEqual(pins.get(rotated.nodeId), undefined);
  assert(pins.forget(rotated.nodeId));
});
