import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import {
  ClusterEvent,
  OfferSchema,
  type VmSpawnRequest,
  VmSpawnRequestSchema,
  VmSpawnResponseSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { ClusterMember } from "../cluster/ports.ts";
import { member, spawnRequest } from "../cluster/testing.ts";
import type { AskOptions } from "../../gossip/mod.ts";
import type { Membership } from "../membership/membership.ts";
import { decodeClusterMessage, encodeClusterMessage, encodeRefusal, unwrap } from "./cluster_messages.ts";
import { askForOffers, type OfferAnswer } from "./offers.ts";

const offer = create(VmSpawnResponseSchema, { offer: create(OfferSchema, { workloads: 1 }) });

/** Members that answer queries and calls, and what they were asked. */
async function ask(request: VmSpawnRequest, members: ClusterMember[]) {
  const queried: { to: string[]; request: VmSpawnRequest }[] = [];
  const called: { to: string; request: VmSpawnRequest }[] = [];
  const membership: Pick<Membership, "ask" | "members"> = {
    members: () => new Map([member("self"), ...members].map((each) => [each.id, each])),
    ask(_name: string, { payload, filters = [], onResponse }: AskOptions) {
      const message = decodeClusterMessage(payload as Uint8Array);
      assert.ok(!(message instanceof Error));
      const nodes = filters.flatMap((each) => each.kind === "nodes" ? each.nodes : []);
      const to = nodes.length > 0 ? [...nodes] : members.map(({ name }) => name);
      queried.push({ to, request: unwrap(message, VmSpawnRequestSchema)! });
      for (const name of to) {
        const isFull = name === "name-full";
        const answer = isFull
          ? encodeRefusal("no memory is left", name)
          : encodeClusterMessage(ClusterEvent.SPAWN, VmSpawnResponseSchema, offer);
        onResponse?.(name, answer);
      }
      return Promise.resolve({ acks: [], responses: [] });
    },
  };
  const answers: OfferAnswer[] = [];
  await askForOffers(membership, request, {
    members,
    timeoutMs: 1_000,
    call({ id }, each) {
      called.push({ to: id, request: each });
      return id === "full" ? Promise.reject(new Error("no memory is left")) : Promise.resolve(offer);
    },
    onAnswer(answer) {
      answers.push(answer);
      return "open";
    },
  });
  const said = answers.map((each) => `${each.member.id} ${each.kind === "offer" ? "offers" : each.reason}`);
  return { queried, called, said: said.sort() };
}

const go = member("go", { tags: {} });
const secret = { env: ["KEY=secret"], args: ["--password", "x"] };

Deno.test("rule 6a: a request that fits is asked of all by one query, without secrets", async () => {
  const members = [member("a"), member("full"), go];
  const { queried, called, said } = await ask(spawnRequest({ ...secret, labels: { team: "a" } }), members);
  assert.deepEqual(said, ["a offers", "full no memory is left", "go offers"]);
  assert.deepEqual([queried.length, called], [1, []]);
  const { env, args, labels, dryRun } = queried[0].request;
  assert.deepEqual([env, args, labels, dryRun], [[], [], { team: "a" }, true]);
});

Deno.test("rule 9b: a request with a policy, or too long for a query, is asked of our own nodes by calls, and of others in short", async () => {
  const labels = Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`label-${i}`, "x".repeat(30)]));
  for (const init of [{ policyJson: '{"name":"own","mode":"enforce"}' }, { labels }]) {
    const { queried, called, said } = await ask(spawnRequest({ ...secret, ...init }), [
      member("a"),
      member("full"),
      go,
    ]);
    assert.deepEqual(said, ["a offers", "full no memory is left", "go offers"]);
    assert.deepEqual(queried.map(({ to }) => to), [["name-go"]]);
    assert.deepEqual(called.map(({ to }) => to), ["a", "full"]);
    const { request } = called[0];
    assert.deepEqual([request.env, request.args, request.dryRun], [["KEY="], [], true]);
    for (const [key, value] of Object.entries(init)) {
      assert.deepEqual(request[key as keyof VmSpawnRequest], value);
    }
    assert.deepEqual([queried[0].request.policyJson, queried[0].request.env], ["", []]);
  }
});
