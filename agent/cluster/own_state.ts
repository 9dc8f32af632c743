import { create, equals, toBinary } from "@bufbuild/protobuf";
import {
  BeaconMetadataSchema,
  type NodeStateResponse,
  NodeStateResponseSchema,
  type Tombstone,
  type WorkloadProof,
  WorkloadProofSchema,
  type WorkloadState,
  WorkloadStateSchema,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import {
  type Heartbeat,
  HeartbeatSchema,
  type StateUpdate,
  StateUpdateSchema,
} from "../../proto/gen/hypercore/v1/peer_pb.ts";
import {
  DELTA_PACKET_BYTES,
  HISTORY_VERSIONS,
  MAX_DELTAS,
  MAX_STATED_TOMBSTONES,
  MAX_TOLD,
  QUIET_CHANGE_MS,
  TOMBSTONE_MS,
} from "./limits.ts";
import type { LocalState, StateSigner, StateVersion } from "./ports.ts";
import { headerDigest, rootHash, signedBytes, stateRoot } from "./state_digest.ts";
import { type ToldWorkload, toldWorkload } from "./told_workload.ts";

/** What an {@linkcode OwnState} is made of. */
export interface OwnStateOptions {
  node: { id: string; name: string; ip: string };
  agentVersion: string;
  /** Start of the agent, milliseconds since the epoch; never lower than an earlier one's. */
  incarnation: bigint;
  /** Absent: states are not signed. */
  signer?: StateSigner;
}

/** One thing that a change changes. */
type Step =
  | { kind: "put"; id: string; own: Own }
  | { kind: "remove"; id: string }
  | { kind: "tombstone"; tombstone: Tombstone }
  | { kind: "header" };

/** A told workload, and what it was made from. */
interface Own extends ToldWorkload {
  given: WorkloadState;
  /** Of it without proof and time of change. */
  content: string;
}

/** What one version changed. */
interface Change {
  version: bigint;
  ids: readonly string[];
  tombstones: readonly Tombstone[];
  sameHeader: boolean;
}

/** Bytes that an update takes beside its header, workloads and tombstones: versions, signature, hash. */
const UPDATE_OVERHEAD_BYTES = 180;
const TOMBSTONE_BYTES = 32;

/**
 * The state of this node: complete, versioned, and able to say what changed since an earlier version. Each method that
 * changes it gives the differences to tell, in order; a change too large for that gives one version and none to tell.
 */
export class OwnState {
  readonly #options: OwnStateOptions;
  readonly #workloads = new Map<string, Own>();
  readonly #tombstones = new Map<string, Tombstone>();
  #incarnation: bigint;
  #version = 0n;
  #header: NodeStateResponse;
  #root: Uint8Array;
  #history: Change[] = [];
  #quietSinceMs = -Infinity;
  #isQuietPending = false;
  /** What was asked for of the present version, by the version that it goes back to: hundreds may ask for the same. */
  readonly #told = new Map<bigint | undefined, StateUpdate>();

  constructor(options: OwnStateOptions) {
    this.#options = options;
    this.#incarnation = options.incarnation;
    this.#header = this.#newHeader({ cordoned: false, tags: {} });
    this.#root = this.#currentRoot();
  }

  /** The version of the state as it is. */
  get at(): StateVersion {
    return { incarnation: this.#incarnation, version: this.#version };
  }

  /** What commits to all of it; see `StateUpdate`. */
  get root(): Uint8Array {
    return this.#root;
  }

  /** By id. */
  get workloads(): ReadonlyMap<string, ToldWorkload> {
    return this.#workloads;
  }

  /** The state without workloads and tombstones. */
  get header(): NodeStateResponse {
    return this.#header;
  }

  /** Whether beacon data, observations or proofs have changed that are to be told later: call {@linkcode update} again then. */
  get quietDueMs(): number | undefined {
    return this.#isQuietPending ? this.#quietSinceMs + QUIET_CHANGE_MS : undefined;
  }

  /** Tombstones that it states. */
  get tombstones(): Iterable<Tombstone> {
    return this.#tombstones.values();
  }

  /** Takes the state of this node as it is now. `wallMs` is stated as the time of the change. */
  update(local: LocalState, time: { steadyMs: number; wallMs: number }): StateUpdate[] {
    const isLoud = time.steadyMs - this.#quietSinceMs >= QUIET_CHANGE_MS;
    this.#isQuietPending = false;
    const steps: Step[] = [];
    const header = this.#changedHeader(local, isLoud);
    if (header || this.#version === 0n) steps.push({ kind: "header" });
    const seen = new Set<string>();
    for (const given of local.workloads) {
      seen.add(given.id);
      const own = this.#changed(given, { isLoud, wallMs: time.wallMs });
      if (own !== undefined) steps.push({ kind: "put", id: given.id, own });
    }
    for (const id of this.#workloads.keys()) if (!seen.has(id)) steps.push({ kind: "remove", id });
    const isDynamic = !equals(
      NodeStateResponseSchema,
      this.#dynamic(this.#header),
      this.#dynamic(this.#newHeader(local)),
    );
    if (steps.length === 0 && !isDynamic) return [];
    if (isLoud) this.#quietSinceMs = time.steadyMs;
    const { beacon, observations } = isLoud || header ? local : this.#header;
    this.#header = this.#newHeader({ ...local, beacon, observations });
    return this.#commit(steps, time.wallMs);
  }

  /** States a tombstone. */
  bury(tombstone: Tombstone, wallMs: number): StateUpdate[] {
    this.#tombstones.delete(tombstone.id);
    this.#tombstones.set(tombstone.id, tombstone);
    for (const [id, { stoppedAtMs }] of this.#tombstones) {
      if (this.#tombstones.size <= MAX_STATED_TOMBSTONES && Number(stoppedAtMs) + TOMBSTONE_MS > wallMs) {
        break;
      }
      this.#tombstones.delete(id);
    }
    return this.#commit([{ kind: "tombstone", tombstone }], wallMs);
  }

  /** Begins anew with an incarnation above one that others hold of this node. */
  outbid(incarnation: bigint, wallMs: number): void {
    this.#incarnation = incarnation + 1n;
    this.#history = [];
    this.#commit([{ kind: "header" }], wallMs);
  }

  /** All of it. */
  whole(): StateUpdate {
    return this.#remember(undefined, () => this.#whole());
  }

  #whole(): StateUpdate {
    const state = create(NodeStateResponseSchema, {
      ...this.#header,
      workloads: Array.from(this.#workloads.values(), ({ state }) => state),
      tombstones: [...this.#tombstones.values()],
    });
    return this.#sign(create(StateUpdateSchema, { state }));
  }

  /** What changed since a version, or all of it where that is not known any more. */
  since(base: StateVersion | undefined): StateUpdate {
    if (base === undefined || base.incarnation !== this.#incarnation || base.version === 0n) {
      return this.whole();
    }
    if (base.version > this.#version) return this.whole();
    return this.#told.get(base.version) ?? this.#since(base);
  }

  #since(base: StateVersion): StateUpdate {
    const first = this.#history.findIndex(({ version }) => version > base.version);
    const changes = first < 0 ? [] : this.#history.slice(first);
    if (BigInt(changes.length) !== this.#version - base.version) return this.whole();
    const ids = new Set(changes.flatMap((change) => change.ids));
    return this.#remember(base.version, () =>
      this.#difference(base.version, {
        ids,
        tombstones: changes.flatMap((change) => change.tombstones),
        sameHeader: changes.every((change) => change.sameHeader),
      }));
  }

  #remember(base: bigint | undefined, make: () => StateUpdate): StateUpdate {
    let told = this.#told.get(base);
    if (told !== undefined) return told;
    if (this.#told.size >= MAX_TOLD) this.#told.clear();
    this.#told.set(base, told = make());
    return told;
  }

  /** Says which version this is. */
  heartbeat(): Heartbeat {
    return create(HeartbeatSchema, {
      nodeId: this.#options.node.id,
      incarnation: this.#incarnation,
      version: this.#version,
      hash: rootHash(this.#root),
    });
  }

  /** Applies the steps, a packet's worth a version. */
  #commit(steps: readonly Step[], wallMs: number): StateUpdate[] {
    const batches = this.#pack(steps);
    if (batches.length > MAX_DELTAS) {
      this.#apply(steps, wallMs);
      return [];
    }
    return batches.map((batch) => this.#apply(batch, wallMs));
  }

  #pack(steps: readonly Step[]): Step[][] {
    const headerBytes = toBinary(NodeStateResponseSchema, this.#header).length;
    const batches: Step[][] = [[]];
    let room = DELTA_PACKET_BYTES - UPDATE_OVERHEAD_BYTES;
    for (const step of steps) {
      const bytes = step.kind === "header" ? headerBytes : sizeOf(step);
      if (bytes > room && batches[batches.length - 1].length > 0) {
        batches.push([]);
        room = DELTA_PACKET_BYTES - UPDATE_OVERHEAD_BYTES;
      }
      batches[batches.length - 1].push(step);
      room -= bytes;
    }
    return batches;
  }

  #apply(steps: readonly Step[], wallMs: number): StateUpdate {
    const base = this.#version;
    const ids: string[] = [];
    const tombstones: Tombstone[] = [];
    for (const step of steps) {
      if (step.kind === "put") this.#workloads.set(step.id, step.own);
      if (step.kind === "remove") this.#workloads.delete(step.id);
      if (step.kind === "put" || step.kind === "remove") ids.push(step.id);
      if (step.kind === "tombstone") tombstones.push(step.tombstone);
    }
    this.#version++;
    this.#told.clear();
    this.#header = create(NodeStateResponseSchema, {
      ...this.#header,
      incarnation: this.#incarnation,
      version: this.#version,
      statedAtMs: BigInt(Math.round(wallMs)),
    });
    this.#root = this.#currentRoot();
    const sameHeader = !steps.some(({ kind }) => kind === "header");
    this.#history.push({ version: this.#version, ids, tombstones, sameHeader });
    if (this.#history.length > HISTORY_VERSIONS) this.#history.shift();
    if (base === 0n) return this.whole();
    return this.#difference(base, { ids, tombstones, sameHeader });
  }

  #difference(
    baseVersion: bigint,
    change: { ids: Iterable<string>; tombstones: readonly Tombstone[]; sameHeader: boolean },
  ): StateUpdate {
    const workloads: WorkloadState[] = [];
    const removed: string[] = [];
    for (const id of change.ids) {
      const own = this.#workloads.get(id);
      if (own === undefined) removed.push(id);
      else workloads.push(own.state);
    }
    const { node, ...header } = this.#header;
    const { incarnation, version, statedAtMs, capacity, cordoned } = header;
    const state = change.sameHeader
      ? { node: { id: node!.id }, incarnation, version, statedAtMs, capacity, cordoned }
      : this.#header;
    return this.#sign(create(StateUpdateSchema, {
      baseVersion,
      removed,
      sameHeader: change.sameHeader,
      state: create(NodeStateResponseSchema, { ...state, workloads, tombstones: [...change.tombstones] }),
    }));
  }

  #sign(update: StateUpdate): StateUpdate {
    update.hash = rootHash(this.#root);
    const { signer } = this.#options;
    const state = update.state!;
    if (signer) state.stateSignature = signer.sign(signedBytes(this.#root, state.tombstones));
    return update;
  }

  /** The workload as it is to be told, where that is new. */
  #changed(given: WorkloadState, options: { isLoud: boolean; wallMs: number }): Own | undefined {
    const old = this.#workloads.get(given.id);
    if (old?.given === given) return undefined;
    const bare = toldWorkload(create(WorkloadStateSchema, { ...given, proof: undefined, changedAtMs: 0n }));
    const isSame = old !== undefined && bare.digest === old.content;
    if (isSame) {
      if (sameProof(old.state.proof, given.proof)) {
        old.given = given;
        return undefined;
      }
      if (!options.isLoud) {
        this.#isQuietPending = true;
        return undefined;
      }
    }
    const changedAtMs = given.changedAtMs !== 0n
      ? given.changedAtMs
      : isSame
      ? old.state.changedAtMs
      : BigInt(Math.round(options.wallMs));
    const told = toldWorkload(create(WorkloadStateSchema, { ...given, changedAtMs }));
    return { ...told, given, content: bare.digest };
  }

  /** Whether the part of the header that differences may leave out is new. */
  #changedHeader(local: LocalState, isLoud: boolean): boolean {
    const next = this.#newHeader(local);
    const isBeaconSame = equals(NodeStateResponseSchema, this.#quiet(this.#header), this.#quiet(next));
    const isRestSame = equals(NodeStateResponseSchema, this.#static(this.#header), this.#static(next));
    if (isRestSame && !isBeaconSame && !isLoud) this.#isQuietPending = true;
    return !isRestSame || (!isBeaconSame && isLoud);
  }

  /** What changes all the time. */
  #quiet({ beacon, observations }: NodeStateResponse): NodeStateResponse {
    return create(NodeStateResponseSchema, { beacon, observations });
  }

  /** What changes seldom, and is told at once when it does. */
  #static({ node, policy, tags, agentVersion, publicKey, beacon }: NodeStateResponse): NodeStateResponse {
    const { nodeCapabilities, pricePerGb } = beacon ?? {};
    const stated = create(BeaconMetadataSchema, { nodeCapabilities, pricePerGb });
    return create(NodeStateResponseSchema, { node, policy, tags, agentVersion, publicKey, beacon: stated });
  }

  #dynamic({ capacity, cordoned }: NodeStateResponse): NodeStateResponse {
    return create(NodeStateResponseSchema, { capacity, cordoned });
  }

  #newHeader(local: Partial<LocalState>): NodeStateResponse {
    const { node: { id, name, ip }, agentVersion, signer } = this.#options;
    const { capacity, cordoned, tags, policy, beacon, observations } = local;
    return create(NodeStateResponseSchema, {
      node: { id, name, ip },
      beacon,
      policy,
      capacity,
      cordoned,
      tags,
      agentVersion,
      publicKey: signer?.publicKey,
      rotations: [...signer?.rotations ?? []],
      observations,
      incarnation: this.#incarnation,
      version: this.#version,
    });
  }

  #currentRoot(): Uint8Array {
    return stateRoot(headerDigest(this.#header), this.#workloads);
  }
}

function sizeOf(step: Step): number {
  switch (step.kind) {
    case "put":
      return step.own.bytes + 4;
    case "remove":
      return step.id.length + 2;
    default:
      return TOMBSTONE_BYTES;
  }
}

function sameProof(a: WorkloadProof | undefined, b: WorkloadProof | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return equals(WorkloadProofSchema, a, b);
}
