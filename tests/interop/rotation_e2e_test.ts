import assert from "node:assert/strict";
import { freePort } from "../support/free_port.ts";
import { OurNode } from "./our_node.ts";
import { ANSWER_FLAG, installSerf, SerfAgent, until } from "./serf_agent.ts";

const [OLD, NEW, NEWER] = [1, 2, 3].map((fill) => new Uint8Array(32).fill(fill).toBase64());
const host = "127.0.0.1";

await installSerf();

/** Starts one of ours with its key ring and snapshot in a directory of its own. Its port is still free when it is back. */
function start(dir: string, name: string, join: string[] = [], port = freePort()): Promise<OurNode> {
  const files = { keyringFile: `${dir}/${name}.keys`, snapshotFile: `${dir}/${name}.snap` };
  return OurNode.start({ name, bind: { host, port }, keys: [OLD], join, ...files });
}

async function rotate(by: OurNode, from: string, to: string): Promise<void> {
  for (const [operation, key] of [["install", to], ["use", to], ["remove", from]] as const) {
    const result = await by.ask<{ ok: boolean; errors: unknown[] }>({ do: "key", operation, key });
    assert.deepEqual(result.errors, [], operation);
  }
}

async function withDir(use: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await use(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

Deno.test("a node that was killed before a whole rotation comes back with its old key file, among agents and ours", async () => {
  await withDir(async (dir) => {
    await using agent = await SerfAgent.start("real", [`-encrypt=${OLD}`]);
    await using a = await start(dir, "a", [agent.address]);
    await using b = await start(dir, "b", [agent.address]);
    const sleeper = await start(dir, "sleeper", [agent.address]);
    await until("all four are seen", async () => {
      for (const node of [a, b]) {
        if ([...(await node.members()).values()].filter(({ status }) => status === "alive").length < 4) {
          return false;
        }
      }
      return true;
    });
    await until("the sleeper's snapshot names the others", async () => {
      const text = await Deno.readTextFile(`${dir}/sleeper.snap`).catch(() => "");
      return ["a", "b"].every((name) => text.includes(`alive: ${name} `));
    });
    await sleeper.kill("SIGKILL");
    await until("it is seen to have failed", async () => await a.status("sleeper") === "failed");
    await rotate(a, OLD, NEW);
    assert.deepEqual(
      JSON.parse(await Deno.readTextFile(`${dir}/sleeper.keys`)),
      [OLD],
      "it slept through it",
    );
    await using awake = await start(dir, "sleeper", [], sleeper.port);
    await until(
      "it has the new key",
      async () => JSON.stringify(await awake.ask({ do: "keys" })) === JSON.stringify([NEW]),
    );
    await until(
      "ours see it",
      async () => await a.status("sleeper") === "alive" && await b.status("sleeper") === "alive",
    );
    await until("the agent sees it", async () => await agent.status("sleeper") === "alive");
    assert.deepEqual(JSON.parse(await Deno.readTextFile(`${dir}/sleeper.keys`)), [NEW]);
    const result = await agent.run("query", "-format=json", ANSWER_FLAG, "ask");
    assert.equal(JSON.parse(result).Responses.sleeper, "sleeper got ask");
  });
});

Deno.test("the door outlives the members: all are replaced or restarted before the latecomer returns", async () => {
  await withDir(async (dir) => {
    await using a = await start(dir, "a");
    const late = await start(dir, "late", [`127.0.0.1:${a.port}`]);
    await until("both are seen", async () => await a.status("late") === "alive");
    await late.kill("SIGKILL");
    await until("it is seen to have failed", async () => await a.status("late") === "failed");
    await rotate(a, OLD, NEW);
    await a.kill("SIGKILL");
    const files = { keyringFile: `${dir}/a.keys`, snapshotFile: `${dir}/a.snap` };
    await using again = await OurNode.start({ name: "a", bind: { host, port: a.port }, ...files });
    assert.deepEqual(await again.ask({ do: "keys" }), [NEW]);
    await using heir = await OurNode.start({
      name: "heir",
      bind: { host, port: 0 },
      keys: [NEW],
      keyringFile: `${dir}/heir.keys`,
      join: [`127.0.0.1:${a.port}`],
    });
    await rotate(again, NEW, NEWER);
    await until(
      "the heir has the newest key",
      async () => JSON.stringify(await heir.ask({ do: "keys" })) === `["${NEWER}"]`,
    );
    await again.ask({ do: "leave" });
    await again.kill("SIGKILL");
    // The heir never saw the latecomer: it knows it from the member it came through.
    await using back = await start(dir, "late", [`127.0.0.1:${heir.port}`]);
    assert.deepEqual(await back.ask({ do: "keys" }), [NEWER]);
    await using thief = await OurNode.start({ name: "thief", bind: { host, port: 0 }, keys: [OLD] });
    await assert.rejects(
      () => thief.ask({ do: "join", address: `127.0.0.1:${heir.port}` }),
      /no key of the ring opens it/,
    );
    assert.equal(await heir.status("late"), "alive");
  });
});
