import type { PacketCodec } from "../codec/packet.ts";
import type { StreamCodec } from "../codec/stream.ts";
import type { Alive } from "../codec/types.ts";
import type { Endpoint } from "../endpoint.ts";
import type { Random } from "../random.ts";
import type { TimerHeap } from "../timers.ts";
import type { Claim, Claims } from "../codec/claims.ts";
import type { Awareness } from "./awareness.ts";
import type { PickOptions } from "./broadcast_queue.ts";
import type { MemberlistConfig } from "./config.ts";
import type { Node } from "./node.ts";
import type { NodeTable } from "./node_table.ts";

/** What a core wants done; the driver does it and feeds the outcome back. */
export type Effect =
  | { kind: "packet"; to: Endpoint; packet: Uint8Array }
  /** Open a stream, write `request` and, where `reply` is set, read one message; then call `dialed`. */
  | { kind: "dial"; id: number; to: Endpoint; request: Uint8Array; reply: boolean; timeoutMs: number }
  /** Answer an accepted stream and close it; without bytes just close. */
  | { kind: "answer"; id: number; bytes: Uint8Array | undefined };

/** The layer above memberlist (Serf). Called synchronously from within the core. */
export interface Delegate {
  /** The record of a node seen for the first time. */
  createNode(claim: Claim, nowMs: number): Node;
  /** Whether a node that memberlist forgets is still wanted by name. */
  wantsNode(node: Node): boolean;
  /** Whether a node announced that it leaves, as Serf's nodes do before they say goodbye to memberlist. */
  isLeaving(node: Node): boolean;
  nodeJoined(node: Node): void;
  nodeLeft(node: Node): void;
  nodeUpdated(node: Node): void;
  /** Two running nodes claim one name; `other` is the claim that is not in the table. */
  nameConflict(node: Node, other: Alive): void;
  /** A Serf message: `bytes` from `start`, its type byte, to `end`. Shares memory with the packet. */
  userMessage(bytes: Uint8Array, start: number, end: number): void;
  localState(join: boolean): Uint8Array;
  /** Takes over a peer's state; true where it brought a key ring with which to try again. */
  mergeRemoteState(state: Uint8Array, options: { join: boolean; knocked: boolean }): boolean;
  /** What this node says of itself where only a removed key may fit. */
  knock(): Uint8Array;
  /** The answer to a state that came under a removed key; undefined where there is none. */
  answerKnock(state: Uint8Array): Uint8Array | undefined;
  /** Adds queued user messages, each with its type byte, to `into`; returns the bytes used. */
  broadcasts(options: PickOptions, into: Uint8Array[]): number;
  /** Whether anything is queued, and whether any of it was never sent. */
  queued(): { size: number; fresh: boolean };
  /** Payload of acks. */
  ackPayload(): Uint8Array | undefined;
  pingCompleted(node: Node, rttMs: number, payload: Uint8Array | undefined): void;
  /** How a probe ended; the round-trip time is that of a direct answer. */
  probed(node: Node, via: "direct" | "late" | "stream" | "failed", rttMs: number | undefined): void;
}

/** Running totals, read by whoever exports metrics. */
export interface Counters {
  packetsReceived: number;
  packetsSent: number;
  packetsBad: number;
  bytesReceived: number;
  bytesSent: number;
  messagesReceived: number;
  streamsDialed: number;
  streamsServed: number;
  streamsFailed: number;
  streamsRefused: number;
  probes: number;
  probesFailed: number;
  suspicions: number;
  refutations: number;
  deaths: number;
  conflicts: number;
  mergesRefused: number;
  pushPulls: number;
  acks: number;
  nacks: number;
  implausible: number;
  eagerRounds: number;
  broadcastsDropped: number;
  limited: number;
}

/** Counters at zero. */
export function newCounters(): Counters {
  return {
    packetsReceived: 0,
    packetsSent: 0,
    packetsBad: 0,
    bytesReceived: 0,
    bytesSent: 0,
    messagesReceived: 0,
    streamsDialed: 0,
    streamsServed: 0,
    streamsFailed: 0,
    streamsRefused: 0,
    probes: 0,
    probesFailed: 0,
    suspicions: 0,
    refutations: 0,
    deaths: 0,
    conflicts: 0,
    mergesRefused: 0,
    pushPulls: 0,
    acks: 0,
    nacks: 0,
    implausible: 0,
    eagerRounds: 0,
    broadcastsDropped: 0,
    limited: 0,
  };
}

/** What the parts of one memberlist core share. */
export interface Context {
  nowMs: number;
  readonly config: MemberlistConfig;
  readonly random: Random;
  readonly timers: TimerHeap;
  readonly table: NodeTable;
  readonly awareness: Awareness;
  readonly packets: PacketCodec;
  readonly streams: StreamCodec;
  readonly claims: Claims;
  readonly delegate: Delegate;
  readonly counters: Counters;
  readonly effects: Effect[];
  /** This node's own record. */
  readonly self: Node;
  /** Whether this node has left. */
  left: boolean;
}
