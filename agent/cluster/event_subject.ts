import { fromBinary } from "@bufbuild/protobuf";
import { HeartbeatSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { GOSSIP } from "./tags.ts";

/**
 * What a user event is about, for gossip's queue: a node's newer heartbeat takes the place of its older one, so that no more
 * heartbeats wait than there are nodes. Everything else is sent on to the last.
 */
export function clusterEventSubject(event: { name: string; payload: Uint8Array }): string | undefined {
  if (event.name !== GOSSIP.heartbeat) return undefined;
  try {
    return fromBinary(HeartbeatSchema, event.payload).nodeId;
  } catch {
    return undefined;
  }
}
