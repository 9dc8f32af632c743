import assert from "node:assert/strict";
import { TestLan } from "./lan.ts";

Deno.test("hosts of a test network reach each other but where they are cut off, and have namespaces of their own", async () => {
  await using lan = await TestLan.create(3);
  const [a, b] = lan.hosts;
  const reaches = async (from: number, to: number) => {
    const args = ["ping", "-c1", "-W1", "-q", TestLan.address(to)];
    const result = await lan.hosts[from].runCommand({ program: "busybox", args, timeoutMs: 10_000 });
    return result.code === 0;
  };
  assert(await reaches(0, 1));
  await lan.cut([0], [1]);
  assert(!await reaches(0, 1));
  assert(!await reaches(1, 0));
  assert(await reaches(0, 2));
  await lan.heal();
  assert(await reaches(0, 1));
  await lan.cut([0], [1], { oneWay: true });
  assert(!await reaches(0, 1));
  await lan.heal();
  await lan.heal();
  for (const host of [a, b]) await host.run("ip", "netns", "add", "same-name");
  assert.match((await a.run("ip", "netns", "list")).stdout, /same-name/);
});
