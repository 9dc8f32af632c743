/** Bounds of the cluster's cores. Each has a test that hits it. */

/** A node says that it is there this often, milliseconds, while {@linkcode HEARTBEAT_FULL_RATE_NODES} or fewer do. */
export const HEARTBEAT_MS = 5_000;
/** With more nodes each says it as much less often as there are more. */
export const HEARTBEAT_FULL_RATE_NODES = 50;
/**
 * News is followed by a heartbeat after this to twice this, milliseconds, however many nodes there are, and by further ones
 * after twice and four times that and so on, until they are as rare as heartbeats are: whoever missed the news, and the
 * first of them too, does not wait for long.
 */
export const FOLLOW_UP_MS = 10_000;
/** Missed heartbeats after which a node's state is taken for stale. */
export const MISSED_HEARTBEATS = 3;
/** The original's state fragments are sent this often while a member reads no others, milliseconds. */
export const FRAGMENTS_MS = 5_000;

/** Name and payload of a user event together, as the original has it. */
export const MAX_EVENT_BYTES = 2_048;
/** Of those, what Serf's own encoding takes. */
export const EVENT_OVERHEAD_BYTES = 64;
/** Differences are packed up to this size, so that they fit one gossip packet. */
export const DELTA_PACKET_BYTES = 1_150;
/** A change that takes more events than this is only announced; who needs it fetches it. */
export const MAX_DELTAS = 8;
/** A further event is allowed after this time, milliseconds; {@linkcode MAX_DELTAS} in a row. */
export const DELTA_REFILL_MS = 100;

/** Workloads in the state of one node. */
export const MAX_STATE_WORKLOADS = 4_096;
/** Bytes of one workload's state; a longer request is told without what makes it long. */
export const MAX_WORKLOAD_BYTES = 4_096;
/** Characters of the reason why a workload does not run. */
export const MAX_REASON_LENGTH = 512;
/** Bytes of one node's state: of its workloads, and 1 MiB for all else. */
export const MAX_STATE_BYTES = MAX_STATE_WORKLOADS * MAX_WORKLOAD_BYTES + 1_048_576;
/** Nodes whose state is kept. */
export const MAX_STATES = 16_384;
/** Port maps (and as many lists, and strings) that workloads of other nodes share. */
export const MAX_SHARED = 4_096;
/** Versions that a difference can go back. */
export const HISTORY_VERSIONS = 1_024;
/** Answers about the present version of a state that are kept for the next who ask alike. */
export const MAX_TOLD = 16;
/** Beacon data and proofs change all the time: on their own they make a new version this often, milliseconds. */
export const QUIET_CHANGE_MS = 60_000;

/** Tombstones kept; the oldest give way. */
export const MAX_TOMBSTONES = 65_536;
/** Tombstones that one node states; the oldest give way. */
export const MAX_STATED_TOMBSTONES = 4_096;
/** How long a tombstone is kept, milliseconds. */
export const TOMBSTONE_MS = 24 * 3_600_000;

/** Fetches under way at once. */
export const MAX_FETCHES = 16;
/** A fetch that was not answered is given up after this time, milliseconds. */
export const FETCH_TIMEOUT_MS = 30_000;
/** A silent node that lets a fetch wait for this long does not answer, milliseconds: a dead machine refuses nothing. */
export const SILENT_FETCH_MS = 4_000;
/** Pause after a fetch that failed; doubles each time. Milliseconds. */
export const FETCH_RETRY_MS = 1_000;
/** Longest such pause, milliseconds. */
export const FETCH_RETRY_MAX_MS = 60_000;
/** A missed version is waited for this long, since its event may be on its way, milliseconds. */
export const FETCH_DELAY_MS = 300;
/** Fetches of all nodes from one are spread by this much for each node there is, milliseconds. */
export const FETCH_SPREAD_MS = 2;
/** Longest such spread, milliseconds. */
export const FETCH_SPREAD_MAX_MS = 3_000;
/** Failed fetches after which another node is asked for what it knows. */
export const FETCH_FAILURES_BEFORE_RELAY = 3;
/** Least time between two fetches of all states, milliseconds. */
export const FETCH_ALL_MS = 60_000;
/** The same before the first succeeded, milliseconds. */
export const FETCH_ALL_RETRY_MS = 2_000;

/** A copy with a better claim must have been seen running for this long before the local one ends, milliseconds. */
export const DUPLICATE_HOLD_MS = 3_000;
/** An ending that has not happened is asked for again after this time, milliseconds. */
export const END_AGAIN_MS = 10_000;
/** A live copy that a known tombstone forbids is left alone for this long before the tombstone is stated anew. */
export const TOMBSTONE_CONFLICT_MS = 5_000;

/** The next in line takes over a rescheduling after this time, milliseconds. */
export const TAKEOVER_MS = 5_000;
/** Nodes in the line of rescheduling that act, and that are entrusted with the request. */
export const MAX_IN_LINE = 3;
/** How often it is looked whether a majority has been heard since a death, milliseconds. */
export const QUORUM_LOOK_MS = 500;
/** A side that was the smaller one and is not any more waits for this long: others may be about to come back, milliseconds. */
export const QUORUM_REGAINED_MS = MISSED_HEARTBEATS * HEARTBEAT_MS;
/** A death is waited on for this long, so that views of it agree, milliseconds. */
export const DEATH_SETTLE_MS = 500;
/** Reschedulings of this node under way at once. */
export const MAX_RESCHEDULES = 4;
/** A rescheduling that was not answered is given up after this time, milliseconds. */
export const RESCHEDULE_TIMEOUT_MS = 15 * 60_000;
/** A rescheduled workload must appear in a state within this time, milliseconds. */
export const RESCHEDULE_APPEAR_MS = 15_000;
/** Pause after a rescheduling that failed; doubles each time. Milliseconds. */
export const RESCHEDULE_RETRY_MS = 2_000;
/** Longest such pause, milliseconds. */
export const RESCHEDULE_RETRY_MAX_MS = 60_000;

/** Requests of other nodes kept in trust. */
export const MAX_TRUSTED = 8_192;
/** Bytes of all requests kept in trust. */
export const MAX_TRUSTED_BYTES = 64 << 20;
/** Entrustings of this node under way at once. */
export const MAX_ENTRUSTS = 32;
/** An entrusting that failed or was not answered is tried again after this time, milliseconds. */
export const ENTRUST_RETRY_MS = 10_000;
/** A trust whose workload nobody has any more is kept for this long, milliseconds. */
export const TRUST_KEEP_MS = 10 * 60_000;

/** A core's clock moves by at most this much at a time: after a longer sleep nobody is taken for silent. */
export const MAX_CLOCK_STEP_MS = 5_000;
/** Constraints of one request. */
export const MAX_CONSTRAINTS = 64;
/** Length of one constraint. */
export const MAX_CONSTRAINT_LENGTH = 512;
/** Length of a regular expression in a constraint. */
export const MAX_EXPRESSION_LENGTH = 256;
/** In a larger cluster only this many nodes are asked for offers. */
export const MAX_ASKED = 32;
/** Reasons that one combined error lists word for word; the rest is counted. */
export const MAX_REASONS = 64;
