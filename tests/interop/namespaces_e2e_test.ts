import assert from "node:assert/strict";
import { OurNode } from "./our_node.ts";
import { ANSWER_FLAG, installSerf, SerfAgent, until } from "./serf_agent.ts";
import { TwoSides } from "./two_sides.ts";

const KEY = new Uint8Array(32).fill(7).toBase64();
const PORT = 7946;

await installSerf();

/** An address family: hosts of each side as the other side reaches them, and "all addresses" to bind to. */
const FAMILIES = {
  IPv4: {
    at: (side: number, host: number) => `10.55.${side}.${host}`,
    any: "0.0.0.0",
    text: (host: string) => host,
  },
  IPv6: {
    at: (side: number, host: number) => `fd55:${side}::${host}`,
    any: "::",
    text: (host: string) => `[${host}]`,
  },
};

for (const [family, { at, any, text }] of Object.entries(FAMILIES)) {
  Deno.test(`two machines over ${family}, encrypted, ours bound to all addresses: join, events, queries, failure, leave`, async () => {
    await using sides = await TwoSides.make([[1], [2, 3]]);
    const [left, right] = [0, 1].map((side) => sides.path(side));
    await using agent = await SerfAgent.start("agent", [`-encrypt=${KEY}`], {
      host: text(at(0, 1)),
      port: PORT,
      netns: left,
    });
    const options = { keys: [KEY], bind: { host: any, port: PORT } };
    const address = `${text(at(0, 1))}:${PORT}`;
    await using ours = await OurNode.start(
      { ...options, name: "ours", advertise: { host: at(1, 2) }, join: [address] },
      right,
    );
    await until("the agent sees our advertised address", async () => {
      const { members } = JSON.parse(await agent.run("members", "-format=json")) as {
        members: { name: string; addr: string; status: string }[];
      };
      return members.some(({ name, addr, status }) =>
        name === "ours" && status === "alive" && addr === `${text(at(1, 2))}:${PORT}`
      );
    });
    await agent.run("event", "-coalesce=false", "deploy", "1");
    await ours.ask({ do: "event", name: "built" });
    await until("the agent gets our event", () => agent.log.includes("built"));
    const asked = JSON.parse(await agent.run("query", "-format=json", ANSWER_FLAG, "ask"));
    assert.deepEqual(asked.Responses, { ours: "ours got ask" });
    const { acks } = await ours.ask<{ acks: string[] }>({ do: "query", name: "_serf_ping" });
    assert.deepEqual(acks.sort(), ["agent", "ours"]);

    await sides.cut();
    await until("we see it fail", async () => await ours.status("agent") === "failed");
    await until("the agent sees us fail", async () => await agent.status("ours") === "failed");
    await sides.heal();
    await until("we see it again", async () => await ours.status("agent") === "alive");
    await until("the agent sees us again", async () => await agent.status("ours") === "alive");

    await ours.ask({ do: "leave" });
    await until("the agent sees us leave", async () => await agent.status("ours") === "left");
    await ours.kill("SIGKILL");
    const moved = { ...options, name: "ours", bind: { host: at(1, 3), port: PORT }, join: [address] };
    await using back = await OurNode.start(moved, right);
    await until("we are back at another address", async () => await agent.status("ours") === "alive");
    assert.equal((await back.members()).get("agent")?.status, "alive");
  });
}
