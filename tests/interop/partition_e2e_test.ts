import { OurNode } from "./our_node.ts";
import { installSerf, SerfAgent, until } from "./serf_agent.ts";
import { TwoSides } from "./two_sides.ts";

const PARTITION_MS = 120_000;
const HEAL_MS = 180_000;
const PORT = 7946;
/** Nodes of each side; the even ones are ours. */
const HOSTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10]];

Deno.test("five agents and five of ours: a third is cut off for two minutes, and all find each other again", async () => {
  await installSerf();
  await using stack = new AsyncDisposableStack();
  const sides = stack.use(await TwoSides.make(HOSTS));
  const views: { side: number; alive: () => Promise<number> }[] = [];
  for (const [side, hosts] of HOSTS.entries()) {
    for (const i of hosts) {
      const [name, host, netns] = [`n${i}`, `10.55.${side}.${i}`, sides.path(side)];
      const join = i === 1 ? [] : [`10.55.0.1:${PORT}`];
      if (i % 2 === 0) {
        const node = stack.use(await OurNode.start({ name, bind: { host, port: PORT }, join }, netns));
        views.push({
          side,
          alive: async () => living([...await node.members()].map(([, { status }]) => status)),
        });
      } else {
        const args = join.map((address) => `-join=${address}`);
        const agent = stack.use(await SerfAgent.start(name, args, { host, port: PORT, netns }));
        views.push({ side, alive: async () => living([...await agent.members()].map(([, text]) => text)) });
      }
    }
  }
  const all = (count: (side: number) => number) => async () => {
    for (const view of views) if (await view.alive() !== count(view.side)) return false;
    return true;
  };
  await until("all ten see ten", all(() => 10), HEAL_MS);
  await sides.cut();
  const cutMs = performance.now();
  await until("each side sees itself alone", all((side) => HOSTS[side].length), PARTITION_MS);
  await until("two minutes are over", () => performance.now() - cutMs >= PARTITION_MS, PARTITION_MS + 1_000);
  await sides.heal();
  const healMs = performance.now();
  await until("all ten see ten again", all(() => 10), HEAL_MS);
  console.log(`healed after ${Math.round(performance.now() - healMs)} ms`);
});

function living(statuses: string[]): number {
  return statuses.filter((status) => status.startsWith("alive")).length;
}
