import { fromBinary } from "@bufbuild/protobuf";
import { type Heartbeat, HeartbeatSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { GOSSIP } from "./tags.ts";

/** Decodes a heartbeat; throws where it is none. */
const decode = (payload: Uint8Array): Pick<Heartbeat, "nodeId"> => fromBinary(HeartbeatSchema, payload);

/**
 * What a user event is about, for gossip's queue: a node's newer heartbeat takes the place of its older one, so that no more
 * heartbeats wait than there are nodes. Everything else is sent on to the last.
 * `heartbeat` decodes one, and throws where it is none: cores of one process that decode each but once have a way of their own.
 */
export function clusterEventSubject(
  event: { name: string; payload: Uint8Array },
  heartbeat = decode,
): string | undefined {
  if (event.name !== GOSSIP.heartbeat) return undefined;
  try {
    return heartbeat(event.payload).nodeId;
  } catch {
    return undefined;
  }
}
