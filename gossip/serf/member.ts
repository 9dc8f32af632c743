import type { Claim } from "../codec/claims.ts";
import type { Tags } from "../codec/tags.ts";
import { Node } from "../memberlist/node.ts";

/** Status of a member; the numbers are Serf's. */
export const MemberStatus = { none: 0, alive: 1, leaving: 2, left: 3, failed: 4 } as const;
/** One of {@linkcode MemberStatus}. */
export type MemberStatus = typeof MemberStatus[keyof typeof MemberStatus];

/** A node as Serf keeps it: memberlist's record, and what the intents say. `none` is one that is no member (any more). */
export class Member extends Node {
  status: MemberStatus = MemberStatus.none;
  statusLTime = 0;
  /** When the member left or failed; 0 while it is here. */
  goneMs = 0;

  constructor(claim: Claim, nowMs: number) {
    super(claim, nowMs);
  }

  get tags(): Tags {
    return this.claim.tags;
  }

  /** A copy for the application. */
  snapshot(): MemberInfo {
    const { claim } = this;
    return {
      name: claim.node,
      host: claim.endpoint.host,
      port: claim.endpoint.port,
      tags: claim.tags,
      status: STATUS_NAMES[this.status],
      incarnation: this.incarnation,
      versions: claim.versions,
    };
  }
}

/** What the application sees of a member. */
export interface MemberInfo {
  readonly name: string;
  /** IP address as text. */
  readonly host: string;
  readonly port: number;
  readonly tags: Tags;
  readonly status: MemberStatusName;
  readonly incarnation: number;
  /** PMin, PMax, PCur, DMin, DMax, DCur. */
  readonly versions: readonly number[];
}

/** Status as the application sees it. */
export type MemberStatusName = "none" | "alive" | "leaving" | "left" | "failed";
const STATUS_NAMES: readonly MemberStatusName[] = ["none", "alive", "leaving", "left", "failed"];
