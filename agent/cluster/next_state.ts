import { create } from "@bufbuild/protobuf";
import {
  type NodeStateResponse,
  NodeStateResponseSchema,
  type Tombstone,
  type WorkloadState,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import type { StateUpdate } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { MAX_STATE_BYTES, MAX_STATE_WORKLOADS, MAX_STATED_TOMBSTONES } from "./limits.ts";
import type { StateVersion } from "./ports.ts";
import type { Sharing } from "./sharing.ts";
import { headerDigest, headerOf, stateRoot, workloadDigest } from "./state_digest.ts";

/** A workload in somebody's state. */
export interface KnownWorkload {
  state: WorkloadState;
  digest: string;
  bytes: number;
}

/** The state of another node as it was put together; it is never changed. */
export interface KnownState extends StateVersion {
  /** Without workloads. */
  header: NodeStateResponse;
  hash: bigint;
  workloads: ReadonlyMap<string, KnownWorkload>;
  bytes: number;
  /** Of the update that led to this version: its signature covers them. */
  tombstones: readonly Tombstone[];
  signature: string;
  /** Whether the signature was checked and is good. */
  isVerified: boolean;
}

/** Where an update leads. */
export interface NextState {
  state: KnownState;
  /** Workloads that it speaks of. */
  ids: ReadonlySet<string>;
  /** What commits to the state's content. */
  root: Uint8Array;
}

/** The state that an update leads to from `old` (undefined: from nothing), or why it can't be. */
export function nextState(
  update: StateUpdate,
  old: KnownState | undefined,
  sharing: Sharing,
): NextState | string {
  const given = update.state!;
  if (given.workloads.length > MAX_STATE_WORKLOADS) {
    return `it has more than ${MAX_STATE_WORKLOADS} workloads`;
  }
  if (given.tombstones.length > MAX_STATED_TOMBSTONES) {
    return `it has more than ${MAX_STATED_TOMBSTONES} tombstones`;
  }
  const workloads = new Map(old?.workloads);
  let bytes = old?.bytes ?? 0;
  const ids = new Set<string>();
  const take = (id: string, known: KnownWorkload | undefined) => {
    ids.add(id);
    bytes += (known?.bytes ?? 0) - (workloads.get(id)?.bytes ?? 0);
    if (known) workloads.set(id, known);
    else workloads.delete(id);
  };
  for (const id of update.removed) take(id, undefined);
  for (const state of given.workloads) {
    take(state.id, { ...workloadDigest(state), state: sharing.share(state) });
  }
  if (workloads.size > MAX_STATE_WORKLOADS) return `it has more than ${MAX_STATE_WORKLOADS} workloads`;
  if (bytes > MAX_STATE_BYTES) return `it has more than ${MAX_STATE_BYTES} bytes`;
  const header = old && update.sameHeader ? mergedHeader(old.header, given) : headerOf(given);
  const root = stateRoot(headerDigest(header), workloads);
  const state: KnownState = {
    incarnation: given.incarnation,
    version: given.version,
    header,
    hash: update.hash,
    workloads,
    bytes,
    tombstones: given.tombstones,
    signature: given.stateSignature,
    isVerified: false,
  };
  return { state, ids, root };
}

/** What a difference says of the header, on what was known before. */
function mergedHeader(old: NodeStateResponse, given: NodeStateResponse): NodeStateResponse {
  const { incarnation, version, statedAtMs, capacity, cordoned } = given;
  return create(NodeStateResponseSchema, { ...old, incarnation, version, statedAtMs, capacity, cordoned });
}
