import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type BeaconMetadata,
  NodeSchema,
  type NodeStateResponse,
  NodeStateResponseSchema,
  VmSpawnRequestSchema,
  type WorkloadState,
  WorkloadStateSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { EVENT_OVERHEAD_BYTES, MAX_EVENT_BYTES, MAX_STATE_WORKLOADS } from "./limits.ts";
import { GOSSIP } from "./tags.ts";

/** Workloads in one fragment. */
export const FRAGMENT_WORKLOADS = 10;
/** With more workloads than this none goes with its proof, which would take half a fragment each. */
export const MAX_PROVEN_WORKLOADS = 64;
/** Bytes of one fragment's payload. */
export const FRAGMENT_BYTES = MAX_EVENT_BYTES - EVENT_OVERHEAD_BYTES - GOSSIP.stateBroadcast.length;
/** A broadcast that is not complete after this time is dropped, milliseconds. */
export const REASSEMBLY_MS = 30_000;
/** Broadcasts under way from one node. */
export const MAX_BROADCASTS_PER_NODE = 2;
/** Nodes that broadcasts are under way from. */
export const MAX_BROADCASTING_NODES = 1_024;
/** Fragments of one broadcast. */
export const MAX_FRAGMENTS = MAX_STATE_WORKLOADS;

const KINDS = ["complete", "begin", "part", "finish"] as const;
type FragmentKind = typeof KINDS[number];
const IP = /^([0-9A-Za-z-]{1,64})_(complete|begin|part|finish)$/;

/** What a broadcast is made of. */
export interface Broadcast {
  /** The member's name: it is what the original knows nodes by. */
  name: string;
  /** Names this broadcast; a UUID. */
  uuid: string;
  workloads: readonly WorkloadState[];
  beacon?: BeaconMetadata;
}

/**
 * A node's state as the original broadcasts it: fragments of ten workloads, or as many as fit an event, and which of them
 * this is in `node.ip`. Only the original's fields are in them. A workload too long for any event goes without its proof,
 * or is left out where that does not help.
 */
export function encodeFragments({ name, uuid, workloads, beacon }: Broadcast): Uint8Array[] {
  const base = create(NodeStateResponseSchema, { node: { id: name, ip: `${uuid}_complete` }, beacon });
  const room = FRAGMENT_BYTES - toBinary(NodeStateResponseSchema, base).length;
  const groups: WorkloadState[][] = [[]];
  let left = room;
  for (const workload of workloads) {
    let plain = original(workload);
    // Its tag and length are three bytes at most.
    let bytes = toBinary(WorkloadStateSchema, plain).length + 4;
    if (plain.proof !== undefined && (bytes > room || workloads.length > MAX_PROVEN_WORKLOADS)) {
      plain = create(WorkloadStateSchema, { ...plain, proof: undefined });
      bytes = toBinary(WorkloadStateSchema, plain).length + 4;
    }
    if (bytes > room) continue;
    if (bytes > left || groups[groups.length - 1].length === FRAGMENT_WORKLOADS) {
      groups.push([]);
      left = room;
    }
    groups[groups.length - 1].push(plain);
    left -= bytes;
  }
  return groups.map((group, i) => {
    const kind = groups.length === 1
      ? "complete"
      : i === 0
      ? "begin"
      : i < groups.length - 1
      ? "part"
      : "finish";
    return toBinary(
      NodeStateResponseSchema,
      create(NodeStateResponseSchema, {
        ...base,
        node: create(NodeSchema, { id: name, ip: `${uuid}_${kind}` }),
        workloads: group,
      }),
    );
  });
}

/** Without the fields that the original does not have, and without the values of the environment. */
function original({ id, sourceRequest, proof }: WorkloadState): WorkloadState {
  const source = sourceRequest && create(VmSpawnRequestSchema, {
    cores: sourceRequest.cores,
    memory: sourceRequest.memory,
    imageRef: sourceRequest.imageRef,
    ports: sourceRequest.ports,
    env: sourceRequest.env,
  });
  return create(WorkloadStateSchema, { id, sourceRequest: source, proof });
}

/** One fragment, read. */
export interface Fragment {
  /** The member's name. */
  name: string;
  uuid: string;
  kind: FragmentKind;
  state: NodeStateResponse;
}

/** Reads a fragment; an Error value where it is none. */
export function decodeFragment(payload: Uint8Array): Fragment | Error {
  let state: NodeStateResponse;
  try {
    state = fromBinary(NodeStateResponseSchema, payload);
  } catch (cause) {
    return new Error("Cannot read a state fragment: it is no NodeStateResponse", { cause });
  }
  const name = state.node?.id ?? "";
  const match = IP.exec(state.node?.ip ?? "");
  if (name === "") return new Error("Cannot read a state fragment: it names no node");
  if (match === null) {
    return new Error(`Cannot read a state fragment of "${name}": node.ip does not say which it is`);
  }
  return { name, uuid: match[1], kind: match[2] as FragmentKind, state };
}

interface Assembly {
  beganMs: number;
  hasBegin: boolean;
  hasFinish: boolean;
  fragments: number;
  workloads: Map<string, WorkloadState>;
  beacon: BeaconMetadata | undefined;
}

/**
 * Puts broadcasts together again. Fragments carry no number, so a broadcast is taken for whole when begin and finish are
 * there; parts that come later still are added to it as long as no newer broadcast of that node is complete.
 */
export class FragmentAssembler {
  readonly #assemblies = new Map<string, Map<string, Assembly>>();

  /** Nodes that a broadcast is under way from. */
  get size(): number {
    return this.#assemblies.size;
  }

  /** Takes a fragment. The node's state where it is whole now, an Error where it can't be taken. */
  take({ name, uuid, kind, state }: Fragment, nowMs: number): NodeStateResponse | Error | undefined {
    this.#expire(name, nowMs);
    if (kind === "complete") {
      this.#assemblies.delete(name);
      return whole(name, state.workloads, state.beacon);
    }
    const assembly = this.#assembly(name, uuid, nowMs);
    if (assembly === undefined) {
      return new Error(
        `Cannot take a state fragment of "${name}": ${MAX_BROADCASTING_NODES} nodes broadcast already`,
      );
    }
    if (++assembly.fragments > MAX_FRAGMENTS) {
      this.#drop(name, uuid);
      return new Error(
        `Cannot take a state fragment of "${name}": it has more than ${MAX_FRAGMENTS} fragments`,
      );
    }
    for (const workload of state.workloads) assembly.workloads.set(workload.id, workload);
    if (assembly.workloads.size > MAX_STATE_WORKLOADS) {
      this.#drop(name, uuid);
      return new Error(
        `Cannot take a state fragment of "${name}": more than ${MAX_STATE_WORKLOADS} workloads`,
      );
    }
    assembly.beacon = state.beacon ?? assembly.beacon;
    if (kind === "begin") assembly.hasBegin = true;
    if (kind === "finish") assembly.hasFinish = true;
    if (!assembly.hasBegin || !assembly.hasFinish) return undefined;
    return whole(name, [...assembly.workloads.values()], assembly.beacon);
  }

  /** Drops what belongs to a node that is gone. */
  forget(name: string): void {
    this.#assemblies.delete(name);
  }

  /** Drops what has been incomplete for too long. */
  sweep(nowMs: number): void {
    for (const name of [...this.#assemblies.keys()]) this.#expire(name, nowMs);
  }

  #assembly(name: string, uuid: string, nowMs: number): Assembly | undefined {
    let ofNode = this.#assemblies.get(name);
    if (ofNode === undefined) {
      if (this.#assemblies.size >= MAX_BROADCASTING_NODES) return undefined;
      this.#assemblies.set(name, ofNode = new Map());
    }
    let assembly = ofNode.get(uuid);
    if (assembly === undefined) {
      assembly = {
        beganMs: nowMs,
        hasBegin: false,
        hasFinish: false,
        fragments: 0,
        workloads: new Map(),
        beacon: undefined,
      };
      ofNode.set(uuid, assembly);
      if (ofNode.size > MAX_BROADCASTS_PER_NODE) ofNode.delete(ofNode.keys().next().value!);
    }
    return assembly;
  }

  #drop(name: string, uuid: string): void {
    const ofNode = this.#assemblies.get(name);
    ofNode?.delete(uuid);
    if (ofNode?.size === 0) this.#assemblies.delete(name);
  }

  #expire(name: string, nowMs: number): void {
    for (const [uuid, { beganMs }] of this.#assemblies.get(name) ?? []) {
      if (nowMs - beganMs >= REASSEMBLY_MS) this.#drop(name, uuid);
    }
  }
}

function whole(
  name: string,
  workloads: WorkloadState[],
  beacon: BeaconMetadata | undefined,
): NodeStateResponse {
  const node = create(NodeSchema, { id: name, name });
  return create(NodeStateResponseSchema, { node, workloads, beacon });
}
