import assert from "node:assert/strict";
import { hashText, Rendezvous } from "./rendezvous.ts";

const nodes = Array.from({ length: 20 }, (_, i) => `node-${i}`);
const keys = Array.from({ length: 4_000 }, (_, i) => i.toString(16).padStart(12, "0"));

Deno.test("each node is first for about the same number of keys", () => {
  const line = new Rendezvous(nodes);
  const counts = new Map<string, number>();
  for (const key of keys) {
    const [first] = line.first(key, 1);
    counts.set(first, (counts.get(first) ?? 0) + 1);
  }
  // 200 each; five standard deviations.
  for (const node of nodes) {
    assert.ok(Math.abs((counts.get(node) ?? 0) - 200) < 70, `${node}: ${counts.get(node)}`);
  }
});

Deno.test("when a node goes only its keys move, and they move to the next in line", () => {
  const before = new Rendezvous(nodes);
  const after = new Rendezvous(nodes.filter((node) => node !== "node-3"));
  for (const key of keys.slice(0, 500)) {
    const [first, second] = before.first(key, 2);
    assert.equal(after.first(key, 1)[0], first === "node-3" ? second : first);
  }
});

Deno.test("a position is the place in the order; the order of nodes given does not matter", () => {
  const line = new Rendezvous(nodes);
  const mirrored = new Rendezvous(nodes.toReversed());
  for (const key of keys.slice(0, 50)) {
    const order = line.first(key, nodes.length);
    assert.deepEqual(mirrored.first(key, nodes.length), order);
    order.forEach((node, i) => assert.equal(line.position(key, node), i));
    for (const most of [0, 1, 3, nodes.length]) {
      order.forEach((node, i) => assert.equal(line.position(key, node, { most }), Math.min(i, most)));
    }
    assert.deepEqual(line.first(key, 2, order[0]), order.slice(1, 3));
  }
  assert.equal(line.position("key", "nobody"), -1);
  assert.equal(line.position("key", "nobody", { most: 0 }), -1);
  assert.deepEqual(new Rendezvous([]).first("key", 3), []);
});

Deno.test("hashes of similar texts have nothing in common", () => {
  const seen = new Set(keys.map((key) => hashText(key).join()));
  assert.equal(seen.size, keys.length);
});
