import type { Endpoint } from "../endpoint.ts";
import { type Alive, NodeState } from "../codec/types.ts";
import type { Suspicion } from "./suspicion.ts";

/** What this node knows about one node, itself included. */
export class Node {
  state: NodeState = NodeState.dead;
  incarnation = 0;
  suspicion: Suspicion | undefined = undefined;
  /** Position in the probe list. */
  index = -1;

  constructor(
    readonly name: string,
    public endpoint: Endpoint,
    public meta: Uint8Array,
    /** PMin, PMax, PCur, DMin, DMax, DCur; empty where the node did not say. */
    public vsn: Uint8Array,
    public stateChangeMs: number,
  ) {}

  /** Highest memberlist protocol the node speaks; 0 where unknown. */
  get protocolMax(): number {
    return this.vsn[1] ?? 0;
  }

  /** Whether the node is gone: dead or left. */
  get gone(): boolean {
    return this.state === NodeState.dead || this.state === NodeState.left;
  }

  /** The node as an alive message. */
  toAlive(): Alive {
    return {
      node: this.name,
      addr: this.endpoint.addr,
      port: this.endpoint.port,
      meta: this.meta,
      vsn: this.vsn,
      incarnation: this.incarnation,
    };
  }
}
