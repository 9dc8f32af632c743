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

/** The members as a core was told of them last. */
export interface KnownMembers {
  readonly members: readonly ClusterMember[];
  /** Whether each has an id of its own. */
  readonly areDistinct: boolean;
}

/**
 * Brings the table in line with the members, all of them, as gossip has them now. Those that are the same object at the same
 * place as in `known` are passed over: in a large cluster in which much happens that is almost all of them, each time.
 */
export function applyMembers(
  context: CoreContext,
  members: readonly ClusterMember[],
  known?: KnownMembers,
): MembershipChange & { known: KnownMembers } {
  const changed = known && changedOf(known, members);
  if (changed !== undefined) {
    const change = applyEach(context, changed);
    return { ...change, known: { members, areDistinct: true } };
  }
  const seen = byId(context, members);
  const change = applyEach(context, seen.values());
  const { copies, parts: { table, selfId }, touched } = context;
  for (const view of [...table.nodes.values()]) {
    if (seen.has(view.id)) continue;
    for (const id of table.forget(view.id)) {
      copies.set(id, view.id, undefined);
      touched.add(id);
    }
    change.forgotten.push(view);
    change.isLineChanged = true;
  }
  const others = members.filter(({ id }) => id !== selfId).length;
  return { ...change, known: { members, areDistinct: others === seen.size } };
}

/** The members that are others than before; undefined where more may have changed than what is said of a few of them. */
function changedOf(known: KnownMembers, members: readonly ClusterMember[]): ClusterMember[] | undefined {
  if (!known.areDistinct || members.length !== known.members.length) return undefined;
  const changed: ClusterMember[] = [];
  for (let i = 0; i < members.length; i++) {
    if (members[i] === known.members[i]) continue;
    if (members[i].id !== known.members[i].id) return undefined;
    changed.push(members[i]);
  }
  return changed;
}

function applyEach(context: CoreContext, members: Iterable<ClusterMember>): MembershipChange {
  const { nowMs, parts: { table, selfId } } = context;
  const change: MembershipChange = { appeared: [], disappeared: [], forgotten: [], isLineChanged: false };
  for (const member of members) {
    if (member.id === selfId) continue;
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
  return change;
}

/** The members other than this node by their ids; of two with one id the one that counts. */
function byId(context: CoreContext, members: readonly ClusterMember[]): Map<string, ClusterMember> {
  const { selfId } = context.parts;
  const found = new Map<string, ClusterMember>();
  for (const member of members) {
    if (member.id === selfId) continue;
    const other = found.get(member.id);
    if (other === undefined) {
      found.set(member.id, member);
      continue;
    }
    const [first, second] = [member, other].sort(aliveFirst);
    found.set(member.id, first);
    if (second.status === "alive") {
      context.note(member.id, `Cannot tell "${second.name}" from another member: both have this node id`);
    }
  }
  return found;
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
