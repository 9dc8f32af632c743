/** First byte of every memberlist packet, stream and compound part. */
export const MessageType = {
  ping: 0,
  indirectPing: 1,
  ack: 2,
  suspect: 3,
  alive: 4,
  dead: 5,
  pushPull: 6,
  compound: 7,
  user: 8,
  compress: 9,
  encrypt: 10,
  nack: 11,
  hasCrc: 12,
  err: 13,
  hasLabel: 244,
} as const;

/** State of a node on the wire of a push/pull. */
export const NodeState = { alive: 0, suspect: 1, dead: 2, left: 3 } as const;
/** One of {@linkcode NodeState}. */
export type NodeState = typeof NodeState[keyof typeof NodeState];

/** "Are you there?" The answer goes to the source where that is given, else to where the packet came from. */
export interface Ping {
  seqNo: number;
  /** Name of the node that is meant; empty means whoever gets it. */
  node: string;
  sourceAddr?: Uint8Array;
  sourcePort?: number;
  sourceNode?: string;
}

/** "Ask that node for me." */
export interface IndirectPing extends Ping {
  target: Uint8Array;
  /** 0 means the receiver's own bind port. */
  port: number;
  /** Whether the helper says so when the target stays silent. */
  nack: boolean;
}

/** The answer to a {@linkcode Ping}. */
export interface Ack {
  seqNo: number;
  payload?: Uint8Array;
}

/** The helper's "no answer" to an {@linkcode IndirectPing}. */
export interface Nack {
  seqNo: number;
}

/** "I could not reach that node." */
export interface Suspect {
  incarnation: number;
  node: string;
  from: string;
}

/** "That node is dead", or, said by itself (`from === node`), "I left". */
export type Dead = Suspect;

/** A node's own word about itself. */
export interface Alive {
  readonly incarnation: number;
  readonly node: string;
  /** The address exactly as the node states it: 4 or 16 bytes. Nodes compare it bytewise. */
  readonly addr: Uint8Array;
  readonly port: number;
  readonly meta: Uint8Array;
  /** PMin, PMax, PCur, DMin, DMax, DCur. */
  readonly vsn: Uint8Array;
}

/** A node in a push/pull. */
export interface PushPullNode extends Alive {
  readonly state: NodeState;
  /** The same, encoded, where it is at hand. */
  readonly stateEntry?: Uint8Array;
}

/** A message while it is being read. */
export type Draft<T> = { -readonly [K in keyof T]: T[K] };
