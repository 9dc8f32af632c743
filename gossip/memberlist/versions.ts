import { type Alive, NodeState, type PushPullNode } from "../codec/types.ts";
import type { Node } from "./node.ts";

/**
 * Why the nodes of a push/pull cannot be merged: every node's current protocols must be understood by all living
 * ones. Undefined where they can.
 */
export function versionConflict(remote: readonly PushPullNode[], local: readonly Node[]): string | undefined {
  const range = { maxPMin: 0, minPMax: 255, maxDMin: 0, minDMax: 255 };
  const widen = (vsn: Uint8Array) => {
    if (vsn.length < 6) return;
    range.maxPMin = Math.max(range.maxPMin, vsn[0]);
    range.minPMax = Math.min(range.minPMax, vsn[1]);
    range.maxDMin = Math.max(range.maxDMin, vsn[3]);
    range.minDMax = Math.min(range.minDMax, vsn[4]);
  };
  // Most nodes share one vsn; what was looked at just now need not be looked at again.
  let last: Uint8Array | undefined;
  for (const { state, vsn } of remote) {
    if (vsn !== last && state === NodeState.alive) widen(last = vsn);
  }
  for (const { state, vsn } of local) {
    if (vsn !== last && state === NodeState.alive) widen(last = vsn);
  }
  const check = (name: string, vsn: Alive["vsn"]) => {
    const protocol = vsn[2] ?? 0;
    const delegate = vsn[5] ?? 0;
    if (protocol < range.maxPMin || protocol > range.minPMax) {
      return `node "${name}" speaks memberlist protocol ${protocol}, the others ${range.maxPMin} to ${range.minPMax}`;
    }
    if (delegate < range.maxDMin || delegate > range.minDMax) {
      return `node "${name}" speaks Serf protocol ${delegate}, the others ${range.maxDMin} to ${range.minDMax}`;
    }
  };
  last = undefined;
  for (const node of remote) {
    if (node.vsn === last) continue;
    last = node.vsn;
    const conflict = check(node.node, node.vsn);
    if (conflict !== undefined) return conflict;
  }
  for (const node of local) {
    // A node that never said what it speaks must not bar everyone else.
    if (node.vsn === last || node.vsn.length < 6) continue;
    last = node.vsn;
    const conflict = check(node.name, node.vsn);
    if (conflict !== undefined) return conflict;
  }
}
