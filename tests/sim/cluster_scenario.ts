import { Violation } from "./checks.ts";
import type { SimAgent } from "./cluster_agent.ts";
import { ClusterChecks } from "./cluster_checks.ts";
import { type Canary, ClusterWorld, type ClusterWorldOptions } from "./cluster_world.ts";
import { CALM } from "./network.ts";

/** What a run is told. */
export interface ClusterScenarioOptions extends ClusterWorldOptions {
  /** Simulated minutes of trouble. */
  minutes: number;
  loss: number;
  canary?: Canary;
  /** Is given the world before anything happens. */
  observe?: (world: ClusterWorld) => void;
  /** Is told of each part of the life when it begins. */
  phase?: (name: string) => void;
}

/** What a run found. */
export interface ClusterReport {
  workloads: number;
  /** From a node's death until its workloads lived elsewhere, in every view. */
  repairMs: number;
  /** From the end of all trouble until one copy of each lived, in every view. */
  healMs: number;
  spawns: number;
  stops: number;
  moves: number;
  reschedules: number;
  gossipBytesPerNodeSecond: number;
}

/** The command that shows a run again. */
export function clusterReplayCommand(options: ClusterScenarioOptions): string {
  const { seed, nodes, loss, minutes, profile, canary } = options;
  return `deno task sim:cluster --seed ${seed} --nodes ${nodes} --loss ${loss} --minutes ${minutes} ` +
    `--profile ${profile}${canary ? ` --canary ${canary}` : ""}`;
}

/** Until a node's death is known to all: suspicion and its spread. */
const DETECTION_MS = { lan: 40_000, hypercore: 150_000, wan: 150_000, local: 30_000 } as const;
const HEAL_MS = 300_000;
const IMAGES = ["example/web:1", "example/db:2", "example/job:3"];

/**
 * One life of a cluster: it fills up, loses a node in calm weather, and then bears everything at once: crashes of agents
 * and machines, partitions of all kinds, stalls, containerd that starts nothing, workloads that die, operators who spawn,
 * stop, move and drain. When all that ends it must be as it should be. Throws {@linkcode Violation}.
 */
export function runClusterScenario(options: ClusterScenarioOptions): ClusterReport {
  const world = new ClusterWorld({ skewMs: 30_000, ...options });
  options.observe?.(world);
  const phase = options.phase ?? (() => {});
  const checks = new ClusterChecks(world, { routeMs: DETECTION_MS[options.profile] });
  const { random } = world;
  const step = (ms: number) => {
    world.gossip.advance(world.nowMs + ms);
    checks.always();
  };
  const until = (what: string, check: () => string | undefined, limitMs: number): number => {
    const startMs = world.nowMs;
    for (;;) {
      const reason = check();
      if (reason === undefined) return world.nowMs - startMs;
      if (world.nowMs - startMs >= limitMs) throw new Violation(`${what}: ${reason}, after ${limitMs} ms`);
      step(500);
    }
  };
  const isRight = () => checks.settled() ?? checks.agreed();
  const spawn = () => {
    world.spawn(world.pick(world.up), {
      memoryMiB: 128 * (1 + random.int(3)),
      image: world.pick(IMAGES),
      isSecret: random.float() < 0.3,
    });
  };

  // Calm: it assembles and fills up to a third.
  phase("assembling");
  world.startKnown();
  step(5_000);
  phase("filling up");
  const workloads = Math.min(world.agents.length * 4, 400);
  for (let i = 0; i < workloads; i++) world.after(random.float() * 20_000, spawn);
  step(25_000);
  until("filling up", isRight, 60_000);
  if (world.wanted.size !== workloads) {
    throw new Violation(`only ${world.wanted.size} of ${workloads} were placed`);
  }
  phase("calm");
  step(70_000);
  checks.seen();
  checks.routes();

  // One machine dies, and comes back.
  phase("a machine dies");
  const victim = world.agents.slice(1).reduce((a, b) =>
    a.runtime.workloads.size >= b.runtime.workloads.size ? a : b
  );
  const placedBefore = new Map(world.placements);
  const lost = [...victim.runtime.workloads.keys()];
  world.kill(victim, { machine: true });
  if (options.canary === "every-node-reschedules") everyNodeReschedules(world, victim, lost);
  const repairMs = until("repair", isRight, DETECTION_MS[options.profile] + 30_000);
  for (const id of lost) {
    const starts = (world.placements.get(id) ?? 0) - (placedBefore.get(id) ?? 0);
    if (starts > 1) throw new Violation(`${id} was started ${starts} times when its one node died`);
  }
  phase("it comes back");
  world.restart(victim);
  until("the return", isRight, HEAL_MS);

  // An agent dies whose containers run on: when it is back, what was started in their stead is what stays. It is the one
  // that would win among equals.
  phase("an agent dies");
  const silent = world.agents[0];
  const orphans = [...silent.runtime.workloads.keys()];
  world.kill(silent, { machine: false });
  until("the second repair", isRight, DETECTION_MS[options.profile] + 30_000);
  phase("it comes back");
  world.restart(silent);
  until("the second return", isRight, HEAL_MS);
  for (const id of orphans) {
    if (silent.runtime.isRunning(id)) {
      throw new Violation(`${id} went back to the node that was thought dead`);
    }
  }

  phase("trouble");
  const trouble = new Trouble(world);
  const endMs = world.nowMs + options.minutes * 60_000;
  const bytes = world.gossip.network.bytes;
  const fromMs = world.nowMs;
  world.gossip.network.conditions = { loss: options.loss, delayMs: 1, jitterMs: 20, duplicate: 0.01 };
  let nextMs = world.nowMs;
  while (world.nowMs < endMs) {
    if (world.nowMs >= nextMs) {
      trouble.something();
      if (world.wanted.size < workloads && random.float() < 0.5) spawn();
      nextMs = world.nowMs + random.float() * 8_000;
    }
    step(250);
  }
  const gossipBytesPerNodeSecond = (world.gossip.network.bytes - bytes) / world.agents.length /
    ((world.nowMs - fromMs) / 1_000);

  phase("healing");
  trouble.end();
  world.gossip.network.conditions = CALM;
  const healMs = until("healing", isRight, HEAL_MS);
  // It stays as it is.
  phase("calm again");
  step(90_000);
  const reason = isRight();
  if (reason !== undefined) throw new Violation(`after the calm: ${reason}`);
  checks.seen();
  checks.routes();
  const { spawns, stops, moves, reschedules } = world.counts;
  return {
    workloads: world.wanted.size,
    repairMs,
    healMs,
    spawns,
    stops,
    moves,
    reschedules,
    gossipBytesPerNodeSecond: Math.round(gossipBytesPerNodeSecond),
  };
}

/** What goes wrong, and what operators do meanwhile. */
class Trouble {
  readonly #world: ClusterWorld;
  readonly #down = new Set<SimAgent>();
  #isCut = false;

  constructor(world: ClusterWorld) {
    this.#world = world;
  }

  /** One more thing happens. */
  something(): void {
    const { random } = this.#world;
    const things: [number, () => void][] = [
      [3, () => this.#crash()],
      [3, () => this.#partition()],
      [2, () => this.#stall()],
      [2, () => this.#breakContainerd()],
      [4, () => this.#workloadDies()],
      [4, () => this.#stop()],
      [4, () => this.#move()],
      [1, () => this.#drain()],
      [1, () => this.#clock()],
    ];
    let at = random.float() * things.reduce((sum, [weight]) => sum + weight, 0);
    for (const [weight, happen] of things) {
      at -= weight;
      if (at < 0) return happen();
    }
  }

  /** All trouble ends. */
  end(): void {
    const world = this.#world;
    world.gossip.network.partition();
    this.#isCut = false;
    for (const agent of this.#down) world.restart(agent);
    this.#down.clear();
    for (const agent of world.agents) {
      agent.node.stalledUntilMs = Math.min(agent.node.stalledUntilMs, world.nowMs);
      agent.node.disturbedMs = world.nowMs;
      agent.runtime.brokenUntilMs = 0;
      if (agent.isCordoned) agent.cordon(false);
    }
  }

  #crash(): void {
    const world = this.#world;
    if (this.#down.size >= world.agents.length / 3) return;
    const agent = world.pick(world.up);
    this.#down.add(agent);
    world.kill(agent, { machine: world.random.float() < 0.5 });
    world.after(world.random.float() * 120_000, () => {
      if (!this.#down.delete(agent)) return;
      world.restart(agent, { moved: world.random.float() < 0.3 });
    });
  }

  #partition(): void {
    const world = this.#world;
    if (this.#isCut) return;
    this.#isCut = true;
    const { network } = world.gossip;
    const share = 0.1 + world.random.float() * 0.4;
    const side = world.agents.map(() => world.random.float() < share);
    const across = (from: number, to: number) => side[from] !== side[to];
    const kind = world.pick(["whole", "one-way", "flapping"]);
    if (kind === "whole") network.partition(across);
    else if (kind === "one-way") network.partition((from, to) => side[from] && !side[to]);
    else network.partition((from, to) => across(from, to) && Math.floor(world.nowMs / 7_000) % 2 === 0);
    world.after(world.random.float() * 150_000, () => {
      network.partition();
      this.#isCut = false;
      for (const agent of world.agents) agent.node.disturbedMs = world.nowMs;
    });
  }

  #stall(): void {
    const world = this.#world;
    const { node } = world.pick(world.up);
    node.stalledUntilMs = world.nowMs + world.random.float() * 30_000;
    node.disturbedMs = node.stalledUntilMs;
  }

  #breakContainerd(): void {
    const world = this.#world;
    world.pick(world.up).runtime.brokenUntilMs = world.nowMs + world.random.float() * 60_000;
  }

  #workloadDies(): void {
    const { runtime } = this.#world.pick(this.#world.up);
    const ids = [...runtime.workloads.keys()];
    if (ids.length > 0) runtime.die(this.#world.pick(ids));
  }

  #stop(): void {
    const world = this.#world;
    if (world.wanted.size > 0) world.stop(world.pick(world.up), world.pick([...world.wanted.keys()]));
  }

  #move(): void {
    const world = this.#world;
    if (world.wanted.size === 0) return;
    world.move(world.pick(world.up), world.pick([...world.wanted.keys()]), world.pick(world.up).id);
  }

  #drain(): void {
    const world = this.#world;
    const agent = world.pick(world.up);
    world.drain(world.pick(world.up), agent);
    world.after(world.random.float() * 60_000, () => {
      if (agent.isCordoned) agent.cordon(false);
    });
  }

  /** A clock is set. */
  #clock(): void {
    const agent = this.#world.pick(this.#world.up);
    agent.skewMs += Math.round((this.#world.random.float() * 2 - 1) * 60_000);
  }
}

/** As in the original: whoever notices starts it. */
function everyNodeReschedules(world: ClusterWorld, victim: SimAgent, ids: readonly string[]): void {
  for (const agent of world.up) {
    world.after(4_000, () => {
      for (const id of ids) {
        const record = victim.runtime.workloads.get(id);
        if (record) agent.placeSomewhere({ ...record, generation: record.generation + 1n }, () => {});
      }
    });
  }
}
