import { Checks, Violation } from "./checks.ts";
import { World } from "./world.ts";

/** What came of a mass restart. */
export interface MassRestartReport {
  nodes: number;
  /** Virtual time from the last start until every view was whole. */
  wholeAfterMs: number;
  packetsPerNode: number;
  messagesPerNode: number;
  /** Push/pulls that each node began. */
  exchangesPerNode: number;
}

/** Time within which all start, as after a power cut. */
const START_MS = 5_000;
/** Longest time until all views are whole. */
const LIMIT_MS = 120_000;

/**
 * All nodes start within five seconds, each knowing from its earlier life who the others were, and none of them running
 * yet. Throws {@linkcode Violation} where the views are not whole in time or anything grows beyond its bound.
 */
export function massRestart(options: { seed: number; nodes: number }): MassRestartReport {
  const { seed, nodes } = options;
  const world = new World({ seed, nodes, profile: "lan", eager: true });
  const checks = new Checks(world, () => false);
  for (const node of world.nodes) {
    world.at(world.random.float() * START_MS, () => {
      world.start(node);
      world.rejoin(node);
    });
  }
  for (let atMs = 1_000; atMs <= START_MS; atMs += 1_000) {
    world.advance(atMs);
    checks.bounded();
  }
  const wholeAfterMs = world.advanceUntil(() => checks.converged(), { stepMs: 250, limitMs: LIMIT_MS });
  if (wholeAfterMs === undefined) throw new Violation(`Not all of ${nodes} views are whole in time`);
  checks.bounded();
  const mean = (of: "packetsReceived" | "messagesReceived" | "streamsDialed") =>
    Math.round(world.nodes.reduce((sum, { core }) => sum + core.memberlist.counters[of], 0) / nodes);
  return {
    nodes,
    wholeAfterMs,
    packetsPerNode: mean("packetsReceived"),
    messagesPerNode: mean("messagesReceived"),
    exchangesPerNode: mean("streamsDialed"),
  };
}
