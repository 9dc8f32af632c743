import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import {
  CapacitySchema,
  type Offer,
  OfferSchema,
  type VmSpawnRequest,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { seededRandom } from "../../gossip/random.ts";
import { MAX_ASKED, MAX_REASONS } from "./limits.ts";
import { type Candidate, Placement, type PlacementOptions } from "./placement.ts";
import { spawnRequest } from "./testing.ts";

const GIB = 1n << 30n;

function candidate(id: string, init: Partial<Candidate> = {}): Candidate {
  const capacity = create(CapacitySchema, { milliCpus: 8_000, memoryBytes: 8n * GIB });
  return { id, name: `name-${id}`, tags: {}, cordoned: false, capacity, sameImage: 0, ...init };
}

function offer(freeGib: number, init: Partial<Omit<Offer, "$typeName">> = {}): Offer {
  return create(OfferSchema, { freeMemoryBytes: BigInt(freeGib) * GIB, ...init });
}

function placement(
  candidates: Candidate[],
  request: Partial<Omit<VmSpawnRequest, "$typeName">> = {},
  options: Partial<PlacementOptions> = {},
): Placement {
  return new Placement({
    request: spawnRequest(request),
    candidates,
    mode: "ranked",
    random: seededRandom(1),
    ...options,
  });
}

Deno.test("the first answer wins in first-answer mode, and ends the wait", () => {
  const placing = placement(["a", "b"].map((id) => candidate(id)), {}, { mode: "first" });
  assert.deepEqual(placing.ask(), ["a", "b"]);
  assert.equal(placing.isSettled, false);
  placing.offered("b", offer(1));
  assert.equal(placing.isSettled, true);
  placing.offered("a", offer(8));
  assert.deepEqual(placing.order(), ["b", "a"]);
});

Deno.test("ranked, the node with the most free memory is first; the wait ends when all have answered", () => {
  const placing = placement(["a", "b", "c"].map((id) => candidate(id)));
  placing.ask();
  placing.offered("a", offer(2));
  placing.offered("b", offer(6));
  assert.equal(placing.isSettled, false);
  placing.refused("c", "no memory is left");
  assert.equal(placing.isSettled, true);
  assert.deepEqual([placing.next(), placing.next(), placing.next()], ["b", "a", undefined]);
});

Deno.test("half of the answers are enough when one of them is an offer", () => {
  const placing = placement(["a", "b", "c", "d", "e"].map((id) => candidate(id)));
  assert.equal(placing.ask().length, 5);
  for (const id of ["a", "b", "c"]) placing.refused(id, "no memory is left");
  assert.equal(placing.isGoodEnough, false);
  placing.offered("d", offer(2));
  assert.deepEqual([placing.isGoodEnough, placing.isSettled], [true, false]);

  const other = placement(["a", "b", "c"].map((id) => candidate(id)));
  other.ask();
  other.offered("a", offer(2));
  assert.equal(other.isGoodEnough, false, "one of three");
  other.offered("b", offer(2));
  assert.equal(other.isGoodEnough, true);
});

Deno.test("rule 6c: of about equal memory the one that has the image is first, then the one with fewest of it, then the first answer", () => {
  const placing = placement(["a", "b", "c", "d"].map((id) => candidate(id)));
  placing.ask();
  placing.offered("a", offer(4, { sameImage: 2 }));
  placing.offered("b", offer(4));
  placing.offered("c", offer(4));
  placing.offered("d", offer(4, { imagePresent: true }));
  assert.deepEqual(placing.order(), ["d", "b", "c", "a"]);
});

Deno.test("spread prefers the group with the fewest workloads of the image, whatever memory says", () => {
  const zone = (id: string, zone: string, sameImage: number) => candidate(id, { tags: { zone }, sameImage });
  const nodes = [zone("a", "west", 3), zone("b", "west", 0), zone("c", "east", 1)];
  const placing = placement(nodes, { spread: "zone" });
  placing.ask();
  placing.offered("a", offer(8, { sameImage: 3 }));
  placing.offered("b", offer(8));
  placing.offered("c", offer(1, { sameImage: 1 }));
  assert.deepEqual(placing.order()[0], "c");
  const byNode = placement(nodes, { spread: "node" });
  byNode.ask();
  byNode.offered("a", offer(8, { sameImage: 3 }));
  byNode.offered("b", offer(1));
  assert.equal(byNode.order()[0], "b");
});

Deno.test("cordoned nodes, other nodes than the one named and broken constraints are not asked", () => {
  const nodes = [
    candidate("a", { cordoned: true }),
    candidate("b", { tags: { disk: "hdd" } }),
    candidate("c", { tags: { disk: "ssd" } }),
  ];
  const placing = placement(nodes, { constraints: ["disk=ssd"] });
  assert.deepEqual(placing.ask(), ["c"]);
  placing.refused("c", "the port 80 is taken");
  const reasons =
    '(name-a: it is cordoned; name-b: constraint "disk=ssd" does not hold; name-c: the port 80 is taken)';
  assert.equal(placing.error().message, `Cannot place "example/web:1": no node takes it ${reasons}`);
  // In whichever order the nodes became known.
  const turned = placement(nodes.toReversed(), { constraints: ["disk=ssd"] });
  turned.ask();
  turned.refused("c", "the port 80 is taken");
  assert.equal(turned.error().message, placing.error().message);
  assert.deepEqual(placement(nodes, { node: "name-c" }).ask(), ["c"]);
  assert.deepEqual(placement(nodes, { node: "c" }).ask(), ["c"]);
  const nowhere = placement(nodes, { node: "x" });
  assert.deepEqual(nowhere.ask(), []);
  assert.match(nowhere.error().message, /there is no node "x"$/);
  assert.throws(() => placement(nodes, { constraints: ["=x"] }), /Cannot read constraint "=x"/);
});

Deno.test("an offer of a node that may not have it does not count, one of a Go node without details does", () => {
  const placing = placement([
    candidate("a", { cordoned: true }),
    candidate("go", { capacity: undefined }),
    candidate("b"),
  ]);
  placing.ask();
  for (const id of ["a", "go", "stranger"]) placing.offered(id, undefined);
  placing.offered("b", offer(2));
  assert.deepEqual(placing.order(), ["b", "go"]);
});

Deno.test("rule 6d: a node that refuses in the end makes room for the next best", () => {
  const placing = placement(["a", "b"].map((id) => candidate(id)));
  placing.ask();
  placing.offered("a", offer(8));
  placing.offered("b", offer(4));
  assert.equal(placing.next(), "a");
  placing.refused("a", "somebody was faster");
  assert.deepEqual([placing.order(), placing.next(), placing.next()], [["b"], "b", undefined]);
  assert.match(placing.error().message, /name-a: somebody was faster/);
});

Deno.test("rule 6a: in a large cluster the most promising are asked first, and the others when those refuse", () => {
  const nodes = Array.from({ length: 500 }, (_, i) => {
    const usedMemoryBytes = i < 400 ? 8n * GIB : 1n * GIB;
    return candidate(`n${i}`, {
      capacity: create(CapacitySchema, { milliCpus: 8_000, memoryBytes: 8n * GIB, usedMemoryBytes }),
    });
  });
  const placing = placement(nodes);
  const first = placing.ask();
  assert.equal(first.length, MAX_ASKED);
  assert.ok(first.filter((id) => Number(id.slice(1)) >= 400).length >= 24);
  const all = new Set(first);
  for (let asked = first; asked.length > 0; asked = placing.ask()) {
    for (const id of asked) {
      all.add(id);
      placing.refused(id, "no memory is left");
    }
  }
  assert.equal(all.size, 500);
  const { message } = placing.error();
  assert.match(message, new RegExp(`and ${500 - MAX_REASONS} more: no memory is left`));
});

Deno.test("rule 6e: who did not answer is said to be silent; a cluster without nodes has a message of its own", () => {
  const placing = placement(["a", "b"].map((id) => candidate(id)));
  placing.ask();
  placing.refused("a", "no memory is left");
  assert.deepEqual(placing.silent(), ["b"]);
  assert.match(placing.error().message, /name-a: no memory is left; name-b: did not answer/);
  assert.match(placement([]).error().message, /there is no node/);
});

Deno.test("rule 6c: a policy refuses nodes before they are asked and after they have answered, and moves others up", () => {
  const policy: PlacementOptions["policy"] = {
    judge(_request, { id }, given) {
      if (id === "a") return { refused: "the policy says no" };
      if (id === "b" && given !== undefined && given.workloads > 5) return { refused: "it is busy" };
      return { score: id === "d" ? 0.5 : 0 };
    },
  };
  const placing = placement(["a", "b", "c", "d"].map((id) => candidate(id)), {}, { policy });
  assert.deepEqual(placing.ask(), ["b", "c", "d"]);
  placing.offered("b", offer(8, { workloads: 9 }));
  placing.offered("c", offer(8));
  placing.offered("d", offer(1));
  assert.deepEqual(placing.order(), ["d", "c"]);
  assert.match(placing.error().message, /name-a: the policy says no; name-b: it is busy/);
});

Deno.test("a policy's score outweighs memory and images, but not spreading; scores that are about equal leave it to these", () => {
  const scores: Record<string, number> = { a: 0.9, b: 0.88, c: 0.901, d: -0.2 };
  const policy: PlacementOptions["policy"] = { judge: (_request, { id }) => ({ score: scores[id] }) };
  const order = (request: Partial<VmSpawnRequest>) => {
    const placing = placement(Object.keys(scores).map((id) => candidate(id)), request, { policy });
    placing.ask();
    placing.offered("a", offer(2, { sameImage: 1 }));
    placing.offered("b", offer(8, { imagePresent: true, sameImage: 1 }));
    placing.offered("c", offer(4, { sameImage: 1 }));
    placing.offered("d", offer(8, { imagePresent: true }));
    return placing.order();
  };
  assert.deepEqual(order({}), ["c", "a", "b", "d"]);
  assert.deepEqual(order({ spread: "node" }), ["d", "c", "a", "b"]);
});

Deno.test("in a large cluster those that the policy likes best are asked first", () => {
  const many = Array.from({ length: 3 * MAX_ASKED }, (_, i) => candidate(`${i}`));
  const policy: PlacementOptions["policy"] = { judge: (_request, { id }) => ({ score: Number(id) / 100 }) };
  const asked = placement(many, {}, { policy }).ask();
  assert.equal(asked.length, MAX_ASKED);
  for (let i = many.length - 20; i < many.length; i++) assert.ok(asked.includes(`${i}`), `${i}`);
});

Deno.test("a node that the policy likes better than all that offered is waited for", () => {
  const scores: Record<string, number> = { a: 0.5, b: 0.3, far: 0.9, c: 0.5 };
  const policy: PlacementOptions["policy"] = { judge: (_request, { id }) => ({ score: scores[id] }) };
  const placing = placement(Object.keys(scores).map((id) => candidate(id)), {}, { policy });
  placing.ask();
  placing.offered("a", offer(4));
  placing.offered("b", offer(4));
  assert.equal(placing.isGoodEnough, false);
  placing.offered("far", offer(4));
  assert.deepEqual([placing.isGoodEnough, placing.isSettled, placing.order()[0]], [true, false, "far"]);
});
