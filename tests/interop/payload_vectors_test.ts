import assert from "node:assert/strict";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { MsgpackReader } from "../../gossip/codec/msgpack_reader.ts";
import {
  decodeQuery,
  decodeUserEvent,
  encodeQuery,
  encodeUserEvent,
} from "../../gossip/codec/serf_messages.ts";
import vectors from "../../gossip/testdata/vectors.json" with { type: "json" };
import {
  ClusterEvent,
  ClusterMessageSchema,
  NodeStateResponseSchema,
  VmSpawnRequestSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";

function payload(name: string): Uint8Array<ArrayBuffer> {
  const { hex } = vectors.find((vector) => vector.name === name)!;
  return Uint8Array.from(hex!.match(/../g)!, (pair) => parseInt(pair, 16));
}

Deno.test("vector hypercore-clustermessage-spawn: decodes, encodes again, and travels in a query as it is", () => {
  const bytes = payload("hypercore-clustermessage-spawn");
  const message = fromBinary(ClusterMessageSchema, bytes);
  assert.equal(message.event, ClusterEvent.SPAWN);
  const spawn = anyUnpack(message.wrappedMessage!, VmSpawnRequestSchema)!;
  assert.deepEqual(
    [spawn.cores, spawn.memory, spawn.imageRef, spawn.ports, spawn.env],
    [1, 512, "docker.io/library/nginx:latest", { 8080: 80 }, ["A=b"]],
  );
  assert.deepEqual(toBinary(ClusterMessageSchema, message), bytes);
  const query = encodeQuery({
    ltime: 1,
    id: 2,
    addr: new Uint8Array(4),
    port: 3,
    sourceNode: "n",
    filters: [],
    flags: 0,
    relayFactor: 0,
    timeoutNs: 90e9,
    name: "hypercore_query",
    payload: bytes,
  });
  assert.deepEqual(decodeQuery(new MsgpackReader().reset(query, 1)).payload, bytes);
});

Deno.test("vector hypercore-nodestate-complete: decodes, encodes again, and travels in an event as it is", () => {
  const bytes = payload("hypercore-nodestate-complete");
  const state = fromBinary(NodeStateResponseSchema, bytes);
  assert.match(state.node!.ip, /_complete$/);
  assert.deepEqual(state.workloads.map(({ id }) => id), ["wl-1"]);
  assert.deepEqual(toBinary(NodeStateResponseSchema, state), bytes);
  const event = encodeUserEvent({
    ltime: 1,
    name: "hypercore_state_broadcast",
    payload: bytes,
    coalesce: true,
  });
  assert.deepEqual(decodeUserEvent(new MsgpackReader().reset(event, 1)).payload, bytes);
});
