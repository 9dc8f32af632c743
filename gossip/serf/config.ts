import type { EventSubject } from "./event_subjects.ts";

/** What a Serf core is told. Defaults are the Serf library's; see {@linkcode DEFAULT_SERF_CONFIG}. */
export interface SerfConfig {
  /** Longest wait for a leave or a forced leave to spread. */
  broadcastTimeoutMs: number;
  /** Time that a leaving node stays up after its goodbye. */
  leavePropagateDelayMs: number;
  /** Lamport times of user events remembered. */
  eventBuffer: number;
  /** Lamport times of queries remembered. */
  queryBuffer: number;
  reapIntervalMs: number;
  recentIntentTimeoutMs: number;
  reconnectIntervalMs: number;
  /** A failed member is forgotten after this long; its address is remembered (see `rememberedPeers`). */
  reconnectTimeoutMs: number;
  /** A member that left is forgotten after this long. */
  tombstoneTimeoutMs: number;
  /** Addresses of forgotten members that are still tried now and then. */
  rememberedPeers: number;
  /** Broadcasts in each queue. */
  maxQueueDepth: number;
  queueCheckIntervalMs: number;
  queryTimeoutMult: number;
  queryResponseSizeLimit: number;
  querySizeLimit: number;
  /** Name and payload of a user event together; at most 9216. */
  userEventSizeLimit: number;
  /** Whether a node whose name is claimed by another asks the cluster whose it is, and gives way when it loses. */
  nameConflictResolution: boolean;
  coordinates: boolean;
  /** Of two user events about the same that wait to be sent on, the newer takes the older's place. */
  eventSubject?: EventSubject;
  /** Absent means that member events are delivered one by one. */
  coalesceMembers?: CoalesceWindow;
  /** Absent means that user events are delivered one by one. */
  coalesceUserEvents?: CoalesceWindow;
}

/** How long events are gathered. */
export interface CoalesceWindow {
  /** Longest wait of an event. */
  periodMs: number;
  /** Wait after the latest event. */
  quiescentMs: number;
}

/** The Serf library's defaults. */
export const DEFAULT_SERF_CONFIG: SerfConfig = {
  broadcastTimeoutMs: 5_000,
  leavePropagateDelayMs: 1_000,
  eventBuffer: 512,
  queryBuffer: 512,
  reapIntervalMs: 15_000,
  recentIntentTimeoutMs: 5 * 60_000,
  reconnectIntervalMs: 30_000,
  reconnectTimeoutMs: 24 * 3_600_000,
  tombstoneTimeoutMs: 24 * 3_600_000,
  rememberedPeers: 1_024,
  maxQueueDepth: 4_096,
  queueCheckIntervalMs: 30_000,
  queryTimeoutMult: 16,
  queryResponseSizeLimit: 1_024,
  querySizeLimit: 1_024,
  userEventSizeLimit: 512,
  nameConflictResolution: true,
  coordinates: true,
};

/** Hard ceiling of {@linkcode SerfConfig.userEventSizeLimit}. */
export const USER_EVENT_CEILING_BYTES = 9_216;
