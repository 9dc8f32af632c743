import type { ClusterMember } from "../../agent/cluster/ports.ts";
import { TAG } from "../../agent/cluster/tags.ts";
import type { Claim } from "../../gossip/codec/claims.ts";
import { type Member, MemberStatus } from "../../gossip/serf/member.ts";
import type { Members } from "../../gossip/serf/members.ts";

const STATUS: { [status in MemberStatus]: ClusterMember["status"] } = {
  [MemberStatus.none]: "left",
  [MemberStatus.alive]: "alive",
  [MemberStatus.leaving]: "leaving",
  [MemberStatus.left]: "left",
  [MemberStatus.failed]: "failed",
};

/** One agent's list of all members: brought up to date by who changed, not made anew from thousands each time. */
export class MemberList {
  readonly #all: SimMembers;
  #members: readonly ClusterMember[] = [];
  readonly #at = new Map<string, number>();
  readonly #changed = new Set<string>();

  constructor(all: SimMembers) {
    this.#all = all;
  }

  /** Something happened to these members. */
  changed(names: Iterable<string>): void {
    for (const name of names) this.#changed.add(name);
  }

  /** All members as gossip has them now, each at its place of before. */
  from(members: Members): readonly ClusterMember[] {
    const next = this.#members.slice();
    let isSame = next.length > 0;
    for (const name of this.#changed) {
      const [at, member] = [this.#at.get(name), members.get(name)];
      if (at === undefined || member === undefined) isSame = false;
      else next[at] = this.#all.of(member);
    }
    this.#changed.clear();
    if (isSame) return this.#members = next;
    this.#at.clear();
    return this.#members = Array.from(members.values(), (member, i) => {
      this.#at.set(member.name, i);
      return this.#all.of(member);
    });
  }
}

/** Gossip's members as cluster cores see them: the same object for all cores that see one alike. */
export class SimMembers {
  readonly #known = new WeakMap<Claim, Map<MemberStatus, ClusterMember>>();

  /** What a member of gossip is to a cluster core. */
  of({ claim, status, tags, name, endpoint }: Member): ClusterMember {
    let known = this.#known.get(claim);
    if (known === undefined) this.#known.set(claim, known = new Map());
    let member = known.get(status);
    if (member === undefined) {
      member = {
        id: tags.get(TAG.id) ?? name,
        name,
        status: STATUS[status],
        address: { host: endpoint.host, port: endpoint.port },
        tags: Object.fromEntries(tags),
      };
      known.set(status, member);
    }
    return member;
  }
}
