import type { Claim } from "../codec/claims.ts";
import type { Endpoint } from "../endpoint.ts";
import { type Alive, NodeState } from "../codec/types.ts";
import type { Broadcast, Subject } from "./broadcast_queue.ts";
import type { Suspicion } from "./suspicion.ts";

/** What this node knows about one node, itself included. Thousands of these make up a view: keep them small. */
export class Node implements Subject {
  state: NodeState = NodeState.dead;
  incarnation: number;
  /** When the state changed; whole milliseconds, which take no memory of their own. */
  stateChangeMs: number;
  suspicion: Suspicion | undefined = undefined;
  /** Highest incarnation that was known of the node before it moved to where it is. */
  formerIncarnation = 0;
  /** Position in the probe list; −1 where memberlist has forgotten the node. */
  index = -1;
  /** The latest news about the node, while it waits to be sent. */
  queued: Broadcast | undefined = undefined;

  /** `claim` is the node's last word about itself. */
  constructor(public claim: Claim, nowMs: number) {
    this.incarnation = claim.incarnation;
    this.stateChangeMs = Math.floor(nowMs);
  }

  get name(): string {
    return this.claim.node;
  }

  get endpoint(): Endpoint {
    return this.claim.endpoint;
  }

  get meta(): Uint8Array {
    return this.claim.meta;
  }

  /** PMin, PMax, PCur, DMin, DMax, DCur; empty where the node did not say. */
  get vsn(): Uint8Array {
    return this.claim.vsn;
  }

  /** Highest memberlist protocol the node speaks; 0 where unknown. */
  get protocolMax(): number {
    return this.vsn[1] ?? 0;
  }

  /** Whether the node is gone: dead or left. */
  get gone(): boolean {
    return this.state === NodeState.dead || this.state === NodeState.left;
  }

  /** The node enters another state. */
  change(state: NodeState, nowMs: number): void {
    this.state = state;
    this.stateChangeMs = Math.floor(nowMs);
  }

  /** The node as an alive message. */
  toAlive(): Alive {
    const { node, addr, port, meta, vsn } = this.claim;
    return { node, addr, port, meta, vsn, incarnation: this.incarnation };
  }
}
