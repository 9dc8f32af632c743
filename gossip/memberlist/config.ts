/** Timing and sizes of memberlist; the stock profiles are Go's. */
export interface MemberlistTiming {
  /** Deadline of dialling, reading and writing a stream. */
  tcpTimeoutMs: number;
  /** Helpers asked to reach a node that does not answer. */
  indirectChecks: number;
  /** A broadcast is sent this × ceil(log10(n + 1)) times. */
  retransmitMult: number;
  suspicionMult: number;
  suspicionMaxTimeoutMult: number;
  pushPullIntervalMs: number;
  probeTimeoutMs: number;
  probeIntervalMs: number;
  /** The health score stays below this. */
  awarenessMaxMultiplier: number;
  gossipNodes: number;
  gossipIntervalMs: number;
  gossipToTheDeadMs: number;
}

/** Timing profiles; `hypercore` is that of the original's agents. */
export type Profile = "hypercore" | "lan" | "wan" | "local";

const LAN: MemberlistTiming = {
  tcpTimeoutMs: 10_000,
  indirectChecks: 3,
  retransmitMult: 4,
  suspicionMult: 4,
  suspicionMaxTimeoutMult: 6,
  pushPullIntervalMs: 30_000,
  probeTimeoutMs: 500,
  probeIntervalMs: 1_000,
  awarenessMaxMultiplier: 8,
  gossipNodes: 3,
  gossipIntervalMs: 200,
  gossipToTheDeadMs: 30_000,
};

/** The figures of each profile. */
export const PROFILES: Readonly<Record<Profile, MemberlistTiming>> = {
  lan: LAN,
  wan: {
    ...LAN,
    tcpTimeoutMs: 30_000,
    suspicionMult: 6,
    pushPullIntervalMs: 60_000,
    probeTimeoutMs: 3_000,
    probeIntervalMs: 5_000,
    gossipNodes: 4,
    gossipIntervalMs: 500,
    gossipToTheDeadMs: 60_000,
  },
  local: {
    ...LAN,
    tcpTimeoutMs: 1_000,
    indirectChecks: 1,
    retransmitMult: 2,
    suspicionMult: 3,
    pushPullIntervalMs: 15_000,
    probeTimeoutMs: 200,
    gossipNodes: 3,
    gossipIntervalMs: 100,
    gossipToTheDeadMs: 15_000,
  },
  hypercore: { ...LAN, suspicionMult: 6, probeIntervalMs: 5_000, gossipNodes: 2, gossipIntervalMs: 2_000 },
};

/** How news goes out before the next gossip tick. */
export interface EagerOptions {
  /** Nodes that get a fresh broadcast at once. */
  fanout: number;
  /** Sends in a row before they are spaced. */
  burst: number;
  /** Time after which one more send is allowed. */
  refillMs: number;
}

/** Fits every profile: four nodes at once, at most fifty packets' worth of rounds a second. */
export const DEFAULT_EAGER: EagerOptions = { fanout: 4, burst: 16, refillMs: 20 };

/** What a memberlist core is told. */
export interface MemberlistConfig extends MemberlistTiming {
  name: string;
  meta: Uint8Array;
  /** PMin, PMax, PCur, DMin, DMax, DCur. */
  vsn: Uint8Array;
  udpBufferBytes: number;
  /** Absent means news waits for the gossip tick, as in Go. */
  eager?: EagerOptions;
  /** A dead node may come back at another address after this long; undefined means only once it is forgotten. */
  deadNodeReclaimMs?: number;
  /** Whether a node that is claimed at another address is asked at both, so that a moved one is accepted. */
  verifyMoves: boolean;
  /** Whether a suspected node is asked once more, by packet and by stream, before it is declared dead. */
  lastCall: boolean;
}
