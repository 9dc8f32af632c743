import type { MemberInfo } from "./member.ts";

/** What can happen to members; `member-update`: tags, address or versions changed. */
export type MemberEventKind =
  | "member-join"
  | "member-leave"
  | "member-failed"
  | "member-update"
  | "member-reap";

/** Something that happened to members. */
export interface MemberEvent<Kind extends MemberEventKind = MemberEventKind> {
  kind: Kind;
  members: MemberInfo[];
}

/** An application's event. */
export interface UserEvent {
  kind: "user";
  ltime: number;
  name: string;
  payload: Uint8Array;
  coalesce: boolean;
}

/** An application's question, to be answered before its deadline. */
export interface QueryEvent {
  kind: "query";
  ltime: number;
  id: number;
  name: string;
  payload: Uint8Array;
  sourceNode: string;
  /** On the clock of the core. */
  deadlineMs: number;
}

/**
 * How one probe of another node went. `direct`: it answered itself within the probe time-out, `rttMs` later. `late`: it
 * answered later, or through a helper. `stream`: only by TCP. `failed`: not at all.
 */
export interface ProbeOutcome {
  kind: "probe";
  node: string;
  via: "direct" | "late" | "stream" | "failed";
  rttMs: number | undefined;
}

/** What a Serf core tells the application. */
export type SerfEvent =
  | MemberEvent<"member-join">
  | MemberEvent<"member-leave">
  | MemberEvent<"member-failed">
  | MemberEvent<"member-update">
  | MemberEvent<"member-reap">
  | UserEvent
  | QueryEvent
  | ProbeOutcome
  /** The key ring changed and should be stored; raw keys, the primary first. */
  | { kind: "keyring"; keys: Uint8Array[] }
  /** Another running node has this node's name. */
  | { kind: "name-conflict"; name: string; other: string }
  /** The cluster says that this node's name is another's: this node must stop. */
  | { kind: "name-lost"; votes: number; answers: number };
