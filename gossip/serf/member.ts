import { decodeTags, type Tags } from "../codec/tags.ts";
import type { Node } from "../memberlist/node.ts";

/** Status of a member; the numbers are Serf's. */
export const MemberStatus = { none: 0, alive: 1, leaving: 2, left: 3, failed: 4 } as const;
/** One of {@linkcode MemberStatus}. */
export type MemberStatus = typeof MemberStatus[keyof typeof MemberStatus];

/** A member as Serf keeps it: memberlist's node, and what the intents say. */
export class Member {
  /** When the member left or failed; 0 while it is here. */
  goneMs = 0;
  #tags: Tags | undefined;
  #tagsOf: Uint8Array | undefined;

  constructor(public node: Node, public status: MemberStatus, public statusLTime: number) {}

  get name(): string {
    return this.node.name;
  }

  /** Decoded when asked for first, and anew when they change. */
  get tags(): Tags {
    if (this.#tags === undefined || this.#tagsOf !== this.node.meta) {
      this.#tags = decodeTags(this.node.meta);
      this.#tagsOf = this.node.meta;
    }
    return this.#tags;
  }

  /** A copy for the application. */
  snapshot(): MemberInfo {
    const { node } = this;
    return {
      name: node.name,
      host: node.endpoint.host,
      port: node.endpoint.port,
      tags: this.tags,
      status: STATUS_NAMES[this.status],
      incarnation: node.incarnation,
      versions: [...node.vsn],
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
