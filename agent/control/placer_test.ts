import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import {
  ClusterEvent,
  OfferSchema,
  VmSpawnRequestSchema,
  VmSpawnResponseSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { type AskOptions, seededRandom } from "../../gossip/mod.ts";
import { member } from "../cluster/testing.ts";
import type { Membership } from "../membership/membership.ts";
import { encodeClusterMessage, encodeRefusal } from "./cluster_messages.ts";
import { ASK_AGAIN_MS, OFFER_WAIT_MS, Placer, type PlacerParts } from "./placer.ts";

const REQUEST = create(VmSpawnRequestSchema, { imageRef: "web:1", memory: 64 });
const OFFER = encodeClusterMessage(
  ClusterEvent.SPAWN,
  VmSpawnResponseSchema,
  create(VmSpawnResponseSchema, { offer: create(OfferSchema, { workloads: 1 }) }),
);

/** A node "self" that is full and a node "other" that hears only the question of that number, if any. */
function scene(heard: number, answer = OFFER) {
  const waits: number[] = [];
  const membership: Pick<Membership, "ask" | "members"> = {
    members: () => new Map(["self", "other"].map((id) => [id, member(id)])),
    ask(_name: string, { timeoutMs, onResponse }: AskOptions) {
      waits.push(timeoutMs!);
      if (waits.length === heard) onResponse?.(member("other").name, answer);
      return Promise.resolve({ acks: [], responses: [] });
    },
  };
  const placer = new Placer({
    self: { id: "self", name: "name-self" },
    local: { offer: () => Promise.reject(new Error("no memory is left")) },
    membership,
    candidates: () =>
      ["self", "other"].map((id) => ({ id, name: `name-${id}`, tags: {}, cordoned: false, sameImage: 0 })),
    mode: "ranked",
    random: seededRandom(1),
  } as unknown as PlacerParts);
  return { placer, waits };
}

Deno.test("who did not answer is asked again, and waited for longer, before it is said that nobody takes it", async () => {
  for (const heard of [1, 2, 3]) {
    const { placer, waits } = scene(heard);
    assert.equal((await placer.choose(REQUEST)).nodeId, "other");
    assert.deepEqual(waits, [OFFER_WAIT_MS, ...ASK_AGAIN_MS].slice(0, heard));
  }
  const { placer, waits } = scene(Infinity);
  await assert.rejects(placer.choose(REQUEST), /name-other: did not answer; name-self: no memory is left/);
  assert.equal(waits.length, 1 + ASK_AGAIN_MS.length);
});

Deno.test("who refused is not asked again", async () => {
  const { placer, waits } = scene(1, encodeRefusal("no memory is left", "name-other"));
  await assert.rejects(placer.choose(REQUEST), /name-other, name-self: no memory is left/);
  assert.equal(waits.length, 1);
});
