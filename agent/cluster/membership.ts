import type { CoreContext } from "./context.ts";
import type { ClusterMember } from "./ports.ts";
import type { Life, NodeView } from "./state_table.ts";
import { TAG } from "./tags.ts";

/** What a new list of members changed. */
export interface MembershipChange {
  /** Nodes that are there and were not. */
  appeared: NodeView[];
  /** Nodes that were there and are not. */
  disappeared: NodeView[];
  /** Nodes that membership knows no more. */
  forgotten: NodeView[];
  /** Whether the line of those that reschedule may be another. */
  isLineChanged: boolean;
}

/** Brings the table in line with the members, all of them, as gossip has them now. */
export function applyMembers(context: CoreContext, members: readonly ClusterMember[]): MembershipChange {
  const { nowMs, parts: { table, selfId }, touched } = context;
  const change: MembershipChange = { appeared: [], disappeared: [], forgotten: [], isLineChanged: false };
  const seen = new Set<string>();
  for (const member of members.toSorted(aliveFirst)) {
    if (member.id === selfId) continue;
    if (seen.has(member.id)) {
      if (member.status === "alive") {
        context.note(member.id, `Cannot tell "${member.name}" from another member: both have this node id`);
      }
      continue;
    }
    seen.add(member.id);
    const before = table.get(member.id);
    const respawnBefore = before?.member.tags[TAG.respawn];
    const kindBefore = before?.kind;
    const view = table.member(member, nowMs);
    if (view === undefined) {
      context.note(member.id, `Cannot keep the state of "${member.name}": there are too many nodes`);
      continue;
    }
    const life = lifeOf(view, member, before === undefined);
    const isMoved = table.setLife(view, life, nowMs);
    const isNewlyThere = life === "live" && (isMoved || before === undefined || kindBefore !== view.kind);
    if (isNewlyThere) change.appeared.push(view);
    if (isMoved && life !== "live") change.disappeared.push(view);
    if (
      isMoved || before === undefined || kindBefore !== view.kind ||
      respawnBefore !== member.tags[TAG.respawn]
    ) {
      change.isLineChanged = true;
    }
    if (isMoved) touch(context, view);
  }
  for (const view of [...table.nodes.values()]) {
    if (seen.has(view.id)) continue;
    for (const id of table.forget(view.id)) {
      context.copies.set(id, view.id, undefined);
      touched.add(id);
    }
    change.forgotten.push(view);
    change.isLineChanged = true;
  }
  return change;
}

/** Whether the node of a workload is there has changed: everything about it is looked at again. */
export function touch(context: CoreContext, view: NodeView): void {
  for (const id of view.state?.workloads.keys() ?? []) context.touched.add(id);
}

function lifeOf(view: NodeView, member: ClusterMember, isNew: boolean): Life {
  switch (member.status) {
    case "alive":
      return view.life === "stale" ? "stale" : "live";
    case "failed":
      return "failed";
    // One that failed and was then made to leave is as dead as before.
    case "leaving":
    case "left":
      return !isNew && view.deadMs !== undefined ? "failed" : "left";
  }
}

/** Of two members with one id the one that is there counts, then the lower name. */
function aliveFirst(a: ClusterMember, b: ClusterMember): number {
  return Number(b.status === "alive") - Number(a.status === "alive") ||
    (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);
}
