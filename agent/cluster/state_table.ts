import { create } from "@bufbuild/protobuf";
import {
  type NodeStateResponse,
  NodeStateResponseSchema,
  type Tombstone,
} from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import { type Heartbeat, type StateUpdate, StateUpdateSchema } from "../../proto/gen/hypercore/v1/peer_pb.ts";
import { MAX_STATES } from "./limits.ts";
import type { CommonStates } from "./common_states.ts";
import { type KnownState, type NextState, nextState } from "./next_state.ts";
import type { ClusterMember, StateVerifier, StateVersion } from "./ports.ts";
import { rootHash, signedBytes } from "./state_digest.ts";
import { Sharing } from "./sharing.ts";
import { TAG } from "./tags.ts";

/** Whether a node is there, as far as this node knows: `stale` is silent, though membership takes it for alive. */
export type Life = "live" | "stale" | "failed" | "left";

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
  readonly #common: CommonStates | undefined;
  readonly #nodes = new Map<string, NodeView>();
  readonly #sharing = new Sharing();
  #liveCount: number | undefined;

  constructor(options: { selfId: string; verifier?: StateVerifier; common?: CommonStates }) {
    this.#selfId = options.selfId;
    this.#verifier = options.verifier;
    this.#common = options.common;
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
    const { state, root } = next;
    const ids = isWhole && old !== undefined ? new Set([...next.ids, ...old.workloads.keys()]) : next.ids;
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
    view.state = verdict === "verified" ? { ...state, isVerified: true } : state;
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
    const ids = new Set([...next.ids, ...view.state?.workloads.keys() ?? []]);
    view.state = next.state;
    return { kind: "applied", ids, tombstones: [] };
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
      const make = () => create(StateUpdateSchema, { state: this.whole(state), hash: state.hash });
      yield this.#common?.passedOn(state, make) ?? make();
    }
  }

  #next(update: StateUpdate, old: KnownState | undefined): NextState | string {
    const find = () => nextState(update, old, this.#sharing);
    return this.#common === undefined ? find() : this.#common.next(update, old, find);
  }
}

/** The version of a state. */
export function versionOf({ incarnation, version }: StateVersion): StateVersion {
  return { incarnation, version };
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
