import { TestLan } from "../support/lan.ts";
import type { WireOptions } from "../support/slow_wire.ts";
import { LiveAgent, type LiveAgentOptions, until } from "./live_agent.ts";

/** A gossip key for tests. */
export const CLUSTER_KEY = new Uint8Array(32).fill(7).toBase64();

/** How a {@linkcode LiveCluster} is made. */
export interface LiveClusterOptions {
  /** Further flags of every agent. */
  flags?: readonly string[];
  /** Further flags of one agent, by its place. */
  flagsOf?: (i: number) => readonly string[];
  /** Whether all of them are urgent. */
  isUrgent?: LiveAgentOptions["isUrgent"];
  /** What the cable of one agent is like, by its place; absent means as good as a cable is. */
  cableOf?: (i: number) => WireOptions | undefined;
}

/**
 * Agents on one Ethernet, each a process with a network, a containerd and mounts of its own: n1, n2, … Dispose stops what
 * they run and removes every trace.
 */
export class LiveCluster implements AsyncDisposable {
  private constructor(
    readonly lan: TestLan,
    readonly agents: readonly LiveAgent[],
    private readonly owned: AsyncDisposable,
  ) {}

  /** Starts `size` agents; resolves when each sees all. */
  static async start(size: number, options: LiveClusterOptions = {}): Promise<LiveCluster> {
    await using undo = new AsyncDisposableStack();
    const lan = undo.use(await TestLan.create(size));
    for (let i = 0; i < size; i++) {
      const cable = options.cableOf?.(i);
      if (cable !== undefined) await lan.slow(i, cable);
    }
    const agents: LiveAgent[] = [];
    for (let i = 0; i < size; i++) {
      const join = i === 0 ? [] : ["--join", TestLan.address(0)];
      agents.push(undo.use(
        await LiveAgent.prepare({
          host: lan.hosts[i],
          name: `n${i + 1}`,
          isUrgent: options.isUrgent,
          flags: [
            ...["--cluster-bind-addr", `${TestLan.address(i)}:7946`, "--encrypt", CLUSTER_KEY, ...join],
            ...options.flags ?? [],
            ...options.flagsOf?.(i) ?? [],
          ],
        }),
      ));
    }
    await Promise.all(agents.map((agent) => agent.run()));
    const cluster = new LiveCluster(lan, agents, undo.move());
    try {
      await cluster.isWhole();
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
    return cluster;
  }

  /** Waits until each of these agents (all, by default) sees each of them alive, and nobody else. */
  isWhole(agents: readonly LiveAgent[] = this.agents): Promise<void> {
    return isWhole(agents);
  }

  /** What the agents logged last, for the message of a failure. */
  async logs(): Promise<string> {
    const texts = await Promise.all(this.agents.map(async ({ name, logFile }) => {
      return `--- ${name}\n${(await Deno.readTextFile(logFile)).slice(-LOG_CHARACTERS)}`;
    }));
    return texts.join("\n");
  }

  /** Waits until it holds; a failure shows the agents' logs. */
  async until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
    try {
      await until(what, holds);
    } catch (cause) {
      throw new Error(`${cause instanceof Error ? cause.message : cause}\n${await this.logs()}`, { cause });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.owned[Symbol.asyncDispose]();
  }
}

/** Waits until each of these agents sees each of them alive, and nobody else. */
export async function isWhole(agents: readonly LiveAgent[]): Promise<void> {
  await until(`${agents.length} agents see each other`, async () => {
    const views = await Promise.all(agents.map(aliveNames));
    return views.every((names) =>
      agents.every(({ name }) => names.includes(name)) && names.length === agents.length
    );
  });
}

/** What `members --json` says of a member. */
export interface ListedMember {
  id: string;
  name: string;
  address: string;
  status: string;
  kind: string;
  tags: Record<string, string>;
  cordoned: boolean;
  workloads: number;
  isSelf: boolean;
}

/** A member as an agent sees it. */
export async function memberOf(agent: LiveAgent, name: string): Promise<ListedMember | undefined> {
  const members: ListedMember[] = JSON.parse(await agent.ok("members", "--json"));
  return members.find((member) => member.name === name);
}

/** What `list --json` says of a workload, as far as tests of a cluster look at it. */
export interface ListedWorkload {
  id: string;
  name: string;
  node: string;
  status: string;
  image: string;
  url: string;
  restarts: number;
  generation: number;
  ports: Record<string, number>;
}

/** The workloads of the cluster as an agent sees them. */
export async function listOn(agent: LiveAgent): Promise<ListedWorkload[]> {
  return await agent.list() as unknown as ListedWorkload[];
}

/** A workload as an agent sees it. */
export async function findOn(agent: LiveAgent, id: string): Promise<ListedWorkload | undefined> {
  return (await listOn(agent)).find((each) => each.id === id);
}

/** A step of a test whose later steps build on it: they are not taken when it fails. */
export async function step(test: Deno.TestContext, name: string, take: () => Promise<void>): Promise<void> {
  if (!await test.step(name, take)) throw new Error(`the test ends here: "${name}" failed`);
}

/** Of each agent's log in the message of a failure. */
const LOG_CHARACTERS = 3_000;

/** Names of the members an agent takes for alive. */
export async function aliveNames(agent: LiveAgent): Promise<string[]> {
  const { code, out } = await agent.cli(["members", "--json", "--status", "alive"]);
  return code === 0 ? JSON.parse(out).map(({ name }: { name: string }) => name) : [];
}
