import type { Profile } from "../../gossip/memberlist/config.ts";
import { utf8 } from "../../gossip/codec/text.ts";
import { MemberStatus } from "../../gossip/serf/member.ts";
import type { SerfCore } from "../../gossip/serf/serf.ts";
import { Checks, Violation } from "./checks.ts";
import { CALM } from "./network.ts";
import type { SimNode } from "./node.ts";
import { World } from "./world.ts";

/** Time between two troubles in rough weather. */
const TROUBLE_MS = 30_000;

/** What a run is told. */
export interface ScenarioOptions {
  seed: number;
  nodes: number;
  minutes: number;
  loss: number;
  profile: Profile;
  tamper?: (core: SerfCore) => void;
}

/** The command that runs the same life again. */
export function replayCommand(options: ScenarioOptions & { canary?: string }): string {
  const { seed, nodes, loss, minutes, profile, canary } = options;
  return `deno task sim --seed ${seed} --nodes ${nodes} --loss ${loss} --minutes ${minutes} --profile ${profile}` +
    (canary ? ` --canary ${canary}` : "");
}

/** What a run found. */
export interface Report {
  bootMs: number;
  eventMs: number;
  detectionMs: number;
  healMs: number;
  moveMs: number;
  falseDeaths: number;
  packetsPerNodeSecond: number;
}

/**
 * One life of a cluster: it assembles, is calm, spreads events and queries, loses a node, gets a moved one back, falls
 * apart and heals, and bears loss for the rest of the time. Throws {@linkcode Violation} where a property fails.
 */
export function runScenario(options: ScenarioOptions): Report {
  const world = new World({ ...options, eager: true });
  const cut = { side: (_node: SimNode) => 0 };
  const checks = new Checks(
    world,
    (node) =>
      node.up && cut.side(node) === 0 && world.nowMs >= node.stalledUntilMs &&
      world.nowMs - node.disturbedMs > 60_000,
  );
  checks.watch(5_000);
  const pick = () => world.nodes[world.random.int(world.nodes.length)];
  const must = (what: string, ms: number | undefined): number => {
    if (ms === undefined) throw new Violation(`${what} did not happen in time`);
    checks.bounded();
    return ms;
  };

  // Assembling: everyone joins through one of those before it.
  world.start(world.nodes[0]);
  for (const node of world.nodes.slice(1)) {
    world.at(world.random.float() * 5_000 + 10, () => {
      world.start(node);
      const earlier = world.nodes.filter((other) => other.up && other !== node);
      world.join(node, earlier[world.random.int(earlier.length)]);
    });
  }
  world.advance(5_100);
  const bootMs = must(
    "assembling",
    world.advanceUntil(() => checks.converged(), { stepMs: 250, limitMs: 300_000 }),
  );

  checks.calm = true;
  world.advance(world.nowMs + 30_000);
  const eventMs = must("the event's spread", spread(world, checks, pick()));
  must("the query's spread", ask(world, checks, pick()));
  checks.calm = false;

  // A death, and a return at another address.
  const victim = pick();
  world.kill(victim);
  const detectionMs = must(
    "detection",
    world.advanceUntil(() => checks.converged(), { stepMs: 100, limitMs: 600_000 }),
  );
  world.restart(victim, { moved: true });
  world.join(victim, world.nodes.find((node) => node.up && node !== victim)!);
  must("the return", world.advanceUntil(() => checks.converged(), { stepMs: 100, limitMs: 300_000 }));
  // Now it moves without having been missed.
  world.kill(victim);
  world.restart(victim, { moved: true });
  world.join(victim, world.nodes.find((node) => node.up && node !== victim)!);
  const moveMs = must(
    "the move",
    world.advanceUntil(() => hasMoved(world, victim), { stepMs: 100, limitMs: 300_000 }),
  );

  // A third is cut off, long enough to be declared dead and forgotten by memberlist.
  cut.side = (node) => node.index % 3 === 0 ? 1 : 0;
  world.network.partition((from, to) => (from % 3 === 0) !== (to % 3 === 0));
  world.advance(world.nowMs + 180_000);
  world.network.partition();
  cut.side = () => 0;
  for (const node of world.nodes) node.disturbedMs = world.nowMs;
  const healMs = must(
    "healing",
    world.advanceUntil(() => checks.converged(), { stepMs: 250, limitMs: 900_000 }),
  );

  // Rough weather for the rest of the time: loss, reordering, duplicates, stalled processes, ways that are cut in one
  // direction. What is sent meanwhile arrives in the end.
  world.network.conditions = { loss: options.loss, delayMs: 1, jitterMs: 20, duplicate: 0.02 };
  const endMs = options.minutes * 60_000;
  const packets = world.network.packets;
  const roughMs = Math.max(60_000, endMs - world.nowMs);
  const sent = troubles(world, world.nowMs + roughMs);
  world.advance(world.nowMs + roughMs);
  const packetsPerNodeSecond = (world.network.packets - packets) / world.nodes.length / (roughMs / 1000);
  world.network.conditions = CALM;
  world.network.partition();
  must("calming down", world.advanceUntil(() => checks.converged(), { stepMs: 250, limitMs: 300_000 }));
  must(
    "the delivery of what was sent in rough weather",
    world.advanceUntil(
      () => sent.every((name) => checks.deliveries(`event ${name}`) === world.nodes.length),
      {
        stepMs: 1_000,
        limitMs: 600_000,
      },
    ),
  );
  must("the last event's spread", spread(world, checks, pick()));
  const { falseDeaths } = checks;
  return { bootMs, eventMs, detectionMs, healMs, moveMs, falseDeaths, packetsPerNodeSecond };
}

/** Every half minute until `endMs` a process stalls, a way is cut in one direction, and an event is sent; gives their names. */
function troubles(world: World, endMs: number): string[] {
  const { random, nodes } = world;
  const sent: string[] = [];
  const strike = () => {
    if (world.nowMs >= endMs) return;
    const stalled = nodes[random.int(nodes.length)];
    stalled.stalledUntilMs = stalled.disturbedMs = world.nowMs + random.float() * 5_000;
    const [deaf, unheard] = [random.int(nodes.length), random.int(nodes.length)];
    world.network.partition((from, to) => from === unheard && to === deaf);
    const from = nodes[random.int(nodes.length)];
    const name = `rough-${sent.length}`;
    sent.push(name);
    world.run(from, () => from.core.userEvent(world.nowMs, name, utf8("x"), { coalesce: false }));
    world.at(world.nowMs + TROUBLE_MS, strike);
  };
  strike();
  return sent;
}

/** Sends a user event; gives the time until every running node has it. */
export function spread(world: World, checks: Checks, from: SimNode, share = 1): number | undefined {
  const name = `${from.name}-${world.nowMs}`;
  const up = world.nodes.filter((node) => node.up).length;
  world.run(from, () => from.core.userEvent(world.nowMs, name, utf8("x"), { coalesce: false }));
  const all = () => checks.deliveries(`event ${name}`) >= up * share;
  return world.advanceUntil(all, { stepMs: 10, limitMs: 120_000 });
}

function ask(world: World, checks: Checks, from: SimNode): number | undefined {
  const name = `${from.name}-${world.nowMs}`;
  const up = world.nodes.filter((node) => node.up).length;
  world.run(from, () => {
    from.core.query(world.nowMs, name, utf8("x"), { handler: { onDone() {} } });
  });
  return world.advanceUntil(() => checks.deliveries(`query ${name}`) >= up, { stepMs: 10, limitMs: 120_000 });
}

function hasMoved(world: World, mover: SimNode): boolean {
  return world.nodes.every((node) => {
    const member = node.core.members.get(mover.name);
    return member !== undefined && member.status === MemberStatus.alive &&
      member.endpoint.equals(mover.endpoint.addr, mover.endpoint.port);
  });
}
