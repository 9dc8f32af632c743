import type { MemberInfo } from "./member.ts";

/** Something that happened to members. */
export interface MemberEvent {
  kind: "member-join" | "member-leave" | "member-failed" | "member-update" | "member-reap";
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

/** What a Serf core tells the application. */
export type SerfEvent =
  | MemberEvent
  | UserEvent
  | QueryEvent
  /** The key ring changed and should be stored; raw keys, the primary first. */
  | { kind: "keyring"; keys: Uint8Array[] }
  /** Another running node has this node's name. */
  | { kind: "name-conflict"; name: string; other: string }
  /** The cluster says that this node's name is another's: this node must stop. */
  | { kind: "name-lost"; votes: number; answers: number };
