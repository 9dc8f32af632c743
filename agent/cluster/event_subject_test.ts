import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { HeartbeatSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { clusterEventSubject } from "./event_subject.ts";
import { GOSSIP } from "./tags.ts";

Deno.test("heartbeats are about their node, other events about nothing, and bad ones harm nobody", () => {
  const payload = toBinary(HeartbeatSchema, create(HeartbeatSchema, { nodeId: "a", version: 3n }));
  assert.equal(clusterEventSubject({ name: GOSSIP.heartbeat, payload }), "a");
  assert.equal(clusterEventSubject({ name: GOSSIP.stateDelta, payload }), undefined);
  assert.equal(clusterEventSubject({ name: "deploy", payload }), undefined);
  assert.equal(clusterEventSubject({ name: GOSSIP.heartbeat, payload: new Uint8Array([255]) }), undefined);
});
