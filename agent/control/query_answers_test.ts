import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import type { Query } from "../../gossip/mod.ts";
import {
  ClusterEvent,
  VmSpawnRequestSchema,
  type VmSpawnResponse,
  VmSpawnResponseSchema,
  VmStopRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { silentLog } from "../../runtime/log.ts";
import { decodeClusterMessage, encodeClusterMessage } from "./cluster_messages.ts";
import { MAX_QUERIES_IN_WORK, type QueryAnswerParts, QueryAnswers } from "./query_answers.ts";

const SPAWN = encodeClusterMessage(
  ClusterEvent.SPAWN,
  VmSpawnRequestSchema,
  create(VmSpawnRequestSchema, { imageRef: "web:1" }),
);

function query(payload: Uint8Array, rest: Partial<Query> = {}): Query {
  return { kind: "query", name: "hypercore_query", sourceNode: "other", payload, ...rest } as Query;
}

function start(parts: Partial<QueryAnswerParts> = {}) {
  const answered: ClusterEvent[] = [];
  const none = () => Promise.reject(new Error("Cannot do it: not here"));
  const answers = new QueryAnswers({
    nodeName: "n1",
    offer: none,
    spawn: none,
    stop: () => undefined,
    answer: (_query, payload) => {
      const message = decodeClusterMessage(payload);
      assert(!(message instanceof Error));
      answered.push(message.event);
    },
    log: silentLog,
    ...parts,
  });
  return { answers, answered };
}

async function turns(): Promise<void> {
  for (let n = 0; n < 10; n++) await Promise.resolve();
}

Deno.test("rule 8: queries beyond the limit get no answer and are counted; one that is done makes room", async () => {
  const started: ((response: VmSpawnResponse) => void)[] = [];
  const { answers, answered } = start({
    spawn: () => new Promise((resolve) => void started.push(resolve)),
  });
  for (let n = 0; n < MAX_QUERIES_IN_WORK + 3; n++) answers.handle(query(SPAWN));
  await turns();
  assert.deepEqual([started.length, answers.inWork, answers.dropped], [
    MAX_QUERIES_IN_WORK,
    MAX_QUERIES_IN_WORK,
    3,
  ]);
  started[0](create(VmSpawnResponseSchema, { id: "a" }));
  await turns();
  assert.deepEqual([answered, answers.inWork], [[ClusterEvent.SPAWN], MAX_QUERIES_IN_WORK - 1]);
  answers.handle(query(SPAWN));
  await turns();
  assert.deepEqual([started.length, answers.dropped], [MAX_QUERIES_IN_WORK + 1, 3]);
});

Deno.test("own queries, those of other names and stops of what runs elsewhere get no answer; garbage gets a refusal", async () => {
  const { answers, answered } = start();
  const stop = encodeClusterMessage(
    ClusterEvent.STOP,
    VmStopRequestSchema,
    create(VmStopRequestSchema, { id: "0123456789ab" }),
  );
  for (
    const each of [
      query(SPAWN, { sourceNode: "n1" }),
      query(SPAWN, { name: "other" }),
      query(stop),
    ]
  ) answers.handle(each);
  await turns();
  assert.deepEqual([answered, answers.inWork], [[], 0]);
  answers.handle(query(Uint8Array.of(0xff)));
  answers.handle(query(SPAWN));
  await turns();
  assert.deepEqual([answered, answers.inWork], [[ClusterEvent.ERROR, ClusterEvent.ERROR], 0]);
});
