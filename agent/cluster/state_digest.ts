import { create, toBinary } from "@bufbuild/protobuf";
import { createHash } from "node:crypto";
import {
  type NodeStateResponse,
  NodeStateResponseSchema,
  type Tombstone,
  TombstoneSchema,
  type WorkloadState,
  WorkloadStateSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";

const SIGNED_PREFIX = new TextEncoder().encode("hypercore state 1\0");

/** SHA-256 of a workload's state as 32 characters of a byte each, and the length of its binary form in bytes. */
export function workloadDigest(state: WorkloadState): { digest: string; bytes: number } {
  const binary = toBinary(WorkloadStateSchema, state);
  return { digest: createHash("sha256").update(binary).digest("binary"), bytes: binary.length };
}

/** A state without workloads, tombstones and signature. */
export function headerOf(state: NodeStateResponse): NodeStateResponse {
  if (state.workloads.length === 0 && state.tombstones.length === 0 && state.stateSignature === "") {
    return state;
  }
  return create(NodeStateResponseSchema, { ...state, workloads: [], tombstones: [], stateSignature: "" });
}

/** SHA-256 of what {@linkcode headerOf} leaves. */
export function headerDigest(state: NodeStateResponse): Uint8Array {
  return sha256(toBinary(NodeStateResponseSchema, headerOf(state)));
}

/** The root of a state: digests of the header and of the workloads, in the order of their ids. See `StateUpdate`. */
export function stateRoot(
  header: Uint8Array,
  workloads: ReadonlyMap<string, { digest: string }>,
): Uint8Array {
  const digests = [...workloads.keys()].sort().map((id) => workloads.get(id)!.digest);
  return new Uint8Array(createHash("sha256").update(header).update(digests.join(""), "binary").digest());
}

/** The part of a root that heartbeats carry. */
export function rootHash(root: Uint8Array): bigint {
  return new DataView(root.buffer, root.byteOffset).getBigUint64(0, true);
}

/** What a state's signature is over. See `StateUpdate`. */
export function signedBytes(root: Uint8Array, tombstones: readonly Tombstone[]): Uint8Array {
  const hash = createHash("sha256");
  for (const tombstone of tombstones) hash.update(sha256(toBinary(TombstoneSchema, tombstone)));
  const bytes = new Uint8Array(SIGNED_PREFIX.length + 64);
  bytes.set(SIGNED_PREFIX);
  bytes.set(root, SIGNED_PREFIX.length);
  bytes.set(hash.digest(), SIGNED_PREFIX.length + 32);
  return bytes;
}

function sha256(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("sha256").update(bytes).digest());
}
