import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import { LiveAgent, until } from "./live_agent.ts";
import { assertRefused } from "./refusal.ts";

const IMAGE = "test/web:1";

Deno.test("a workload is spawned from flags, file and environment, listed, inspected and stopped", async (t) => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const before = await agent.inventory();
  const stop = async (id: string) => assert.equal(await agent.ok("stop", id), `${id}\n`);

  await t.step("flags", async () => {
    const flags = [
      "--cpu",
      "0.5",
      "--mem",
      "64m",
      "--ports",
      "8080:8080,9090:8080",
      "--name",
      "web",
      "--env",
      "A=b=c",
    ];
    const spawned = JSON.parse(await agent.ok("spawn", "--image-ref", IMAGE, ...flags, "--json"));
    assert.deepEqual(Object.keys(spawned), ["id", "url", "node"]);
    assert.match(spawned.id, /^[0-9a-f]{12}$/);
    assert.equal(spawned.url, `http://${spawned.id}.example.com:8080`);
    assert.equal(spawned.node, "n1");
    await until("both ports serve", async () => {
      const pages = await Promise.all([8080, 9090].map((port) => agent.page(spawned.id, port)));
      return pages.every((page) => page.startsWith("Hello"));
    });
    assert.equal(await agent.ok("exec", "web", "sh", "-c", "echo $A"), "b=c\n");
    // The proof of its start comes a moment later.
    const [{ createdAt, startedAt, proof: _proof, ...listed }] = await agent.list();
    assert.ok(Date.parse(String(createdAt)) <= Date.parse(String(startedAt)));
    assert.deepEqual(listed, {
      id: spawned.id,
      name: "web",
      image: IMAGE,
      node: "n1",
      status: "running",
      url: spawned.url,
      cpus: 0.5,
      memoryMib: 64,
      ports: { "8080": 8080, "9090": 8080 },
      runtime: "runc",
      labels: {},
      generation: 1,
      restarts: 0,
      reason: "",
    });
    assert.match(
      await agent.ok("list"),
      new RegExp(`^ID +NAME .*\\n${spawned.id} +web +${IMAGE} +n1 +running`),
    );
    assert.equal(await agent.ok("cluster", "list", "-q"), `${spawned.id}\n`);
    const inspected = JSON.parse(await agent.ok("inspect", "web"));
    assert.match(inspected.address, /^192\.168\.127\.\d+$/);
    assert.match(inspected.imageDigest, /^sha256:/);
    assert.ok(inspected.pid > 1);
    assert.equal(inspected.spec.process.noNewPrivileges, true);
    await stop("web");
  });
  await t.step("hac.toml", async () => {
    await Deno.writeTextFile(
      `${agent.dir}/hac.toml`,
      `[spacecore]\nname = "n"\ndescription = "d"\n[hardware]\ncores = 1\nmemory = 96\nref = "${IMAGE}"\n`,
    );
    const ids = (await agent.ok("spawn", "--hac", "hac.toml", "--ports", "8080:8080")).split("\n");
    const second = await agent.spawn("--mem", "64"); // the file in the working directory names the image
    assert.deepEqual((await agent.list()).map(({ memoryMib }) => memoryMib).sort(), [64, 96]);
    await Deno.remove(`${agent.dir}/hac.toml`);
    await stop(ids[0]);
    await stop(second);
  });
  await t.step("environment and configuration file, flags first", async () => {
    await Deno.writeTextFile(
      `${agent.dir}/c.toml`,
      `image-ref = "${IMAGE}"\nmem = 80\ncpu = 2\nports = "8080:8080"\n`,
    );
    const { out, code, err } = await agent.cli(["spawn", "--config", "c.toml", "--json", "--cpu", "1"], {
      env: { HYPERCORE_MEM: "72" },
    });
    assert.equal(code, 0, err);
    const [{ cpus, memoryMib, ports }] = await agent.list();
    assert.deepEqual({ cpus, memoryMib, ports }, { cpus: 1, memoryMib: 72, ports: { "8080": 8080 } });
    await stop(JSON.parse(out).id);
  });
  await t.step("a dry run starts nothing", async () => {
    assert.deepEqual(JSON.parse(await agent.ok("spawn", "--image", IMAGE, "--dry-run", "--json")), {
      id: "",
      url: "",
      node: "n1",
    });
  });
  await until("nothing is left", async () => (await agent.list()).length === 0);
  assert.deepEqual(await agent.inventory(), before);
});

Deno.test("Ctrl-C during a spawn undoes it", async () => {
  // A plugin that never ends holds the spawn in the middle.
  const cniDir = await Deno.makeTempDir({ prefix: "hc-cni-" });
  await using _ = { [Symbol.asyncDispose]: () => Deno.remove(cniDir, { recursive: true }) };
  const script =
    `#!/bin/sh\n[ "$CNI_COMMAND" = ADD ] || exec /usr/lib/cni/ptp\n: >${cniDir}/reached\nexec sleep 600\n`;
  await Deno.writeTextFile(`${cniDir}/ptp`, script, { mode: 0o755 });
  await using agent = await LiveAgent.start({ flags: ["--cni-path", cniDir, "--cni-path", "/usr/lib/cni"] });
  await agent.load(busyboxImage(), IMAGE);
  const before = await agent.inventory();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const child = agent.spawnCli(["spawn", "--image-ref", IMAGE, "--mem", "64"]);
    const output = child.output();
    await until("it is in the middle", () => Deno.stat(`${cniDir}/reached`).then(() => true, () => false));
    assert.equal((await agent.list()).length, 1);
    await Deno.remove(`${cniDir}/reached`);
    child.kill(signal);
    const { code, stdout, stderr } = await output;
    const text = new TextDecoder();
    const outcome = { code, out: text.decode(stdout), err: text.decode(stderr) };
    assertRefused(outcome, { code: 130, message: /^hypercore: Cannot spawn "test\/web:1": interrupted$/m });
    // Nobody waits for the undoing of a spawn whose client has left.
    let after = await agent.inventory();
    await until("nothing is left", async () => {
      after = await agent.inventory();
      return JSON.stringify(after) === JSON.stringify(before);
    }).catch(() => {});
    assert.deepEqual(after, before);
  }
});
