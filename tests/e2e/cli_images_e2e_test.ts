import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import { randomBytes } from "../support/random.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { LiveAgent, until } from "./live_agent.ts";
import { assertRefused } from "./refusal.ts";

const IMAGE = "test/web:1";
/** Bytes of a layer whose pull takes long enough to be seen. */
const BIG_LAYER_BYTES = 24 << 20;
const REGISTRY = "127.0.0.1:5000";

Deno.test("images are pulled from a registry, loaded, listed and removed", async (t) => {
  await using registry = await startRegistry();
  await registry.push(
    busyboxImage({ layers: [{ big: { bytes: randomBytes(BIG_LAYER_BYTES) } }] }),
    "team/big:1",
  );
  await registry.push(busyboxImage(), "team/web:1");
  await using agent = await LiveAgent.start();
  await serveInside(agent, registry);

  await t.step("a pull is quiet when nobody watches", async () => {
    const { code, out, err } = await agent.cli(["image", "pull", `${REGISTRY}/team/web:1`]);
    assert.equal(code, 0, err);
    assert.match(out, /^127\.0\.0\.1:5000\/team\/web:1 sha256:[0-9a-f]{64}\n$/);
    assert.equal(err, "");
  });
  await t.step("a pull shows its progress on a terminal, and wipes it", async () => {
    const { code, out } = await agent.terminal(`hypercore image pull ${REGISTRY}/team/big:1`);
    assert.equal(code, 0, out);
    assert.match(out, /[0-9a-f]{12} {2}downloading \S+ \w?iB \/ 24\.0 MiB/);
    assert.match(out.split("\x1b[J").at(-1)!, /^127\.0\.0\.1:5000\/team\/big:1 sha256:[0-9a-f]{64}\s*$/);
  });
  await t.step("a spawn pulls what is not there", async () => {
    await agent.ok("image", "rm", `${REGISTRY}/team/web:1`);
    const id = await agent.spawn("--image", `${REGISTRY}/team/web:1`, "--mem", "64");
    await agent.ok("stop", id);
  });
  await t.step("an archive is loaded from a file and from standard input", async () => {
    await agent.load(busyboxImage(), IMAGE);
    const listed = JSON.parse(await agent.ok("image", "list", "--json"));
    const names = listed.map(({ name }: { name: string }) => name).sort();
    assert.deepEqual(names, [
      "127.0.0.1:5000/team/big:1",
      "127.0.0.1:5000/team/web:1",
      "docker.io/test/web:1",
    ]);
    assert.deepEqual(Object.keys(listed[0]).sort(), ["createdAt", "digest", "name", "platform", "sizeBytes"]);
    assert.match(await agent.ok("image", "ls"), /^NAME +DIGEST +PLATFORM +SIZE +AGE\n/);
  });
  await t.step("what is wrong is one line", async () => {
    const before = await agent.inventory();
    const table: [string[], number, RegExp][] = [
      [["image", "pull", `${REGISTRY}/team/absent:1`], 1, /team\/absent:1.*(not found|unknown|no such)/i],
      [["image", "pull", "127.0.0.1:1/team/web:1"], 1, /127\.0\.0\.1:1/],
      [["image", "pull", "UPPER CASE"], 2, /"UPPER CASE"/],
      [["image", "rm", "test/absent:1"], 1, /test\/absent:1/],
      [["image", "load", "/nonexistent.tar"], 1, /\/nonexistent\.tar/],
      [["image", "load", "/etc/passwd"], 1, /archive|tar|layout/],
    ];
    for (const [args, code, message] of table) assertRefused(await agent.cli(args), { code, message });
    assert.deepEqual(await agent.inventory(), before);
  });
  await t.step("removed images are gone, with their snapshots", async () => {
    for (const name of [IMAGE, `${REGISTRY}/team/big:1`, `${REGISTRY}/team/web:1`]) {
      assert.equal(await agent.ok("image", "rm", name), `${name}\n`);
    }
    assert.deepEqual(JSON.parse(await agent.ok("image", "list", "--json")), []);
    await until("the snapshots are gone", async () => (await agent.inventory()).snapshots.length === 0);
  });
});

/** Serves what a registry of the machine's own network holds inside the agent's network, where it pulls from. */
async function serveInside(agent: LiveAgent, registry: TestRegistry): Promise<void> {
  const config = await Deno.readTextFile(`${registry.dir}/config.yml`);
  const file = `${agent.dir}/registry.yml`;
  await Deno.writeTextFile(file, config.replace('"127.0.0.1:0"', `"${REGISTRY}"`));
  agent.host.spawn("docker-registry", ["serve", file], { stdin: "null", stdout: "null", stderr: "null" });
  await until("the registry answers", async () => (await agent.curl(`http://${REGISTRY}/v2/`)) !== "");
}
