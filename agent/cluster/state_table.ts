import { create } from "@bufbuild/protobuf";
import {
  type NodeStateResponse,
  NodeStateResponseSchema,
  type Tombstone,
  type WorkloadState,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { type Heartbeat, type StateUpdate, StateUpdateSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { MAX_STATE_BYTES, MAX_STATE_WORKLOADS, MAX_STATED_TOMBSTONES, MAX_STATES } from "./limits.ts";
import type { ClusterMember, StateVerifier, StateVersion } from "./ports.ts";
import { headerDigest, headerOf, rootHash, signedBytes, stateRoot, workloadDigest } from "./state_digest.ts";
import { Sharing } from "./sharing.ts";
import { TAG } from "./tags.ts";

/** Whether a node is there, as far as this node knows: `stale` is silent, though membership takes it for alive. */
export type Life = "live" | "stale" | "failed" | "left";

/** A workload in somebody's state. */
export interface KnownWorkload {
  state: WorkloadState;
  digest: string;
  bytes: number;
}

/** What is known of another node. */
export interface NodeView {
  readonly id: string;
  member: ClusterMember;
  /** "foreign" is a Go node or a stock Serf agent. */
  kind: "hypercore" | "foreign";
  life: Life;
  /** When it was heard of last. */
  heardMs: number;
  /** When it was found dead (failed or stale); undefined while it lives, and for one that left in order. */
  deadMs: number | undefined;
  /** Absent as long as nothing of its state is known. */
  state: KnownState | undefined;
}

/** The state of another node as it was put together. */
export interface KnownState extends StateVersion {
  /** Without workloads. */
  header: NodeStateResponse;
  hash: bigint;
  workloads: Map<string, KnownWorkload>;
  bytes: number;
  /** Of the update that led to this version: its signature covers them. */
  tombstones: readonly Tombstone[];
  signature: string;
  /** Whether the signature was checked and is good. */
  isVerified: boolean;
}

/** How an update came: in a gossip event, from the node itself, or from another that knows it. */
export type Via = "event" | "owner" | "relay";

/** What became of an update. */
export type Outcome =
  /** Taken; these ids may have changed, and these are the tombstones that came with it. */
  | { kind: "applied"; ids: ReadonlySet<string>; tombstones: readonly Tombstone[] }
  /** Known already, or older than what is known. */
  | { kind: "old" }
  /** It builds on what is not here, or leads elsewhere than it says: the state must be fetched, whole or from `since`. */
  | { kind: "missing"; since: StateVersion | undefined }
  | { kind: "refused"; reason: string };

/** The states of all other nodes. It believes what their owners say, and nothing else. */
export class StateTable {
  readonly #selfId: string;
  readonly #verifier: StateVerifier | undefined;
  readonly #nodes = new Map<string, NodeView>();
  readonly #sharing = new Sharing();
  #liveCount: number | undefined;

  constructor(options: { selfId: string; verifier?: StateVerifier }) {
    this.#selfId = options.selfId;
    this.#verifier = options.verifier;
  }

  get nodes(): ReadonlyMap<string, NodeView> {
    return this.#nodes;
  }

  get(nodeId: string): NodeView | undefined {
    return this.#nodes.get(nodeId);
  }

  /** Nodes that speak this protocol and are there. */
  get liveCount(): number {
    if (this.#liveCount !== undefined) return this.#liveCount;
    let count = 0;
    for (const { kind, life } of this.#nodes.values()) if (kind === "hypercore" && life === "live") count++;
    return this.#liveCount = count;
  }

  /** Changes whether a node is there; false where it was so already. */
  setLife(view: NodeView, life: Life, nowMs: number): boolean {
    if (view.life === life) return false;
    view.life = life;
    if (life === "live") {
      view.heardMs = nowMs;
      view.deadMs = undefined;
    } else if (life === "left") view.deadMs = undefined;
    else view.deadMs ??= nowMs;
    this.#liveCount = undefined;
    return true;
  }

  /** Enters a member, or changes what is known of it. Undefined where there are too many. */
  member(member: ClusterMember, nowMs: number): NodeView | undefined {
    if (member.id === this.#selfId) return undefined;
    const known = this.#nodes.get(member.id);
    const kind = member.tags[TAG.protocol] === undefined ? "foreign" : "hypercore";
    if (known !== undefined) {
      known.member = member;
      if (known.kind !== kind) {
        known.kind = kind;
        this.#liveCount = undefined;
      }
      return known;
    }
    if (this.#nodes.size >= MAX_STATES) return undefined;
    const view: NodeView = {
      id: member.id,
      member,
      kind,
      life: "live",
      heardMs: nowMs,
      deadMs: undefined,
      state: undefined,
    };
    this.#nodes.set(member.id, view);
    this.#liveCount = undefined;
    return view;
  }

  /** Forgets a node that membership has forgotten. Returns the ids it had. */
  forget(nodeId: string): Iterable<string> {
    const ids = this.#nodes.get(nodeId)?.state?.workloads.keys() ?? [];
    this.#nodes.delete(nodeId);
    this.#liveCount = undefined;
    return ids;
  }

  /** Compares what a heartbeat says with what is known: what must be fetched, or nothing. */
  compare(heartbeat: Heartbeat): { since: StateVersion | undefined } | undefined {
    const state = this.#nodes.get(heartbeat.nodeId)?.state;
    const { incarnation, version, hash } = heartbeat;
    if (state === undefined || incarnation > state.incarnation) return { since: undefined };
    if (incarnation < state.incarnation || version < state.version) return undefined;
    if (version > state.version) return { since: versionOf(state) };
    return hash === state.hash ? undefined : { since: undefined };
  }

  /** Takes an update of a hypercore node. */
  apply(update: StateUpdate, via: Via): Outcome {
    const given = update.state;
    const view = this.#nodes.get(given?.node?.id ?? "");
    if (given === undefined || view === undefined) return refuse("it is of no member");
    if (view.kind === "foreign") return refuse("that member speaks another protocol");
    const old = view.state;
    if (old !== undefined && isOlder(given, old)) return { kind: "old" };
    const isWhole = update.baseVersion === 0n;
    if (!isWhole && (old === undefined || old.incarnation !== given.incarnation)) {
      return { kind: "missing", since: undefined };
    }
    if (!isWhole && old!.version < update.baseVersion) return { kind: "missing", since: versionOf(old!) };
    if (isSame(given, old) && old!.hash === update.hash) return { kind: "old" };

    const next = this.#next(update, isWhole ? undefined : old);
    if (typeof next === "string") return refuse(next);
    const { state, ids, root } = next;
    if (isWhole) { for (const id of old?.workloads.keys() ?? []) ids.add(id); }
    if (rootHash(root) !== update.hash && via !== "owner") {
      return via === "event"
        ? { kind: "missing", since: undefined }
        : refuse("its hash is not that of its content");
    }
    const verdict = this.#verifier?.verify({
      nodeId: view.id,
      bytes: signedBytes(root, given.tombstones),
      header: state.header,
      signature: given.stateSignature,
      publicKey: state.header.publicKey,
    }) ?? "unsigned";
    if (typeof verdict === "object") return refuse(verdict.refused);
    view.state = { ...state, isVerified: verdict === "verified" };
    return { kind: "applied", ids, tombstones: given.tombstones };
  }

  /** Whether this node itself said this in an earlier life: whole, and signed by its key where signatures are checked. */
  isOwn(update: StateUpdate): boolean {
    if (this.#verifier === undefined) return true;
    const given = update.state;
    if (given === undefined || update.baseVersion !== 0n) return false;
    const next = this.#next(update, undefined);
    if (typeof next === "string") return false;
    const verdict = this.#verifier.verify({
      nodeId: this.#selfId,
      bytes: signedBytes(next.root, given.tombstones),
      header: next.state.header,
      signature: given.stateSignature,
      publicKey: next.state.header.publicKey,
    });
    return verdict === "verified";
  }

  /** Takes the state of a member that speaks the original's protocol. */
  applyForeign(nodeId: string, given: NodeStateResponse): Outcome {
    const view = this.#nodes.get(nodeId);
    if (view === undefined) return refuse("it is of no member");
    if (view.kind !== "foreign") return refuse("that member speaks a newer protocol");
    const next = this.#next(create(StateUpdateSchema, { state: given }), undefined);
    if (typeof next === "string") return refuse(next);
    // The original signs nothing that could be checked.
    const { header } = next.state;
    const claim = { nodeId, bytes: new Uint8Array(), header, signature: "", publicKey: new Uint8Array() };
    const verdict = this.#verifier?.verify(claim) ?? "unsigned";
    if (typeof verdict === "object") return refuse(verdict.refused);
    for (const id of view.state?.workloads.keys() ?? []) next.ids.add(id);
    view.state = next.state;
    return { kind: "applied", ids: next.ids, tombstones: [] };
  }

  /** A node's state as one message, its signature where it still holds. */
  whole(state: KnownState): NodeStateResponse {
    return create(NodeStateResponseSchema, {
      ...state.header,
      workloads: Array.from(state.workloads.values(), (known) => known.state),
      tombstones: [...state.tombstones],
      stateSignature: state.signature,
    });
  }

  /** Every state of a hypercore node, to be passed on. */
  *updates(): Generator<StateUpdate> {
    for (const { kind, state } of this.#nodes.values()) {
      if (kind === "foreign" || state === undefined) continue;
      yield create(StateUpdateSchema, { state: this.whole(state), hash: state.hash });
    }
  }

  /** The state that an update leads to, or why it can't be. */
  #next(
    update: StateUpdate,
    old: KnownState | undefined,
  ): { state: KnownState; ids: Set<string>; root: Uint8Array } | string {
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
      take(state.id, { ...workloadDigest(state), state: this.#sharing.share(state) });
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
}

/** The version of a state. */
export function versionOf({ incarnation, version }: StateVersion): StateVersion {
  return { incarnation, version };
}

/** What a difference says of the header, on what was known before. */
function mergedHeader(old: NodeStateResponse, given: NodeStateResponse): NodeStateResponse {
  const { incarnation, version, statedAtMs, capacity, cordoned } = given;
  return create(NodeStateResponseSchema, { ...old, incarnation, version, statedAtMs, capacity, cordoned });
}

/** Whether a version comes before another; never before none. */
export function isOlder(given: StateVersion, old: StateVersion | undefined): boolean {
  return old !== undefined && (given.incarnation < old.incarnation ||
    (given.incarnation === old.incarnation && given.version < old.version));
}

function isSame(given: StateVersion, old: StateVersion | undefined): boolean {
  return given.incarnation === old?.incarnation && given.version === old.version;
}

function refuse(reason: string): Outcome & { kind: "refused" } {
  return { kind: "refused", reason };
}
