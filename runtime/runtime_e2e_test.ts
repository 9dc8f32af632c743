import assert from "node:assert/strict";
import { sweepContainerd } from "../tests/support/containerd.ts";
import { TestHost } from "../tests/support/host.ts";
import { TEST_IMAGE, testImages } from "./container/testing.ts";
import type { ContainerSpec } from "./engine.ts";
import { silentLog } from "./log.ts";
import { openRuntime } from "./mod.ts";

/** Directories, a namespace and a host network for runtimes that come and go. */
async function place() {
  const dir = await Deno.makeTempDir({ prefix: "hc-rt-" });
  const host = await TestHost.create();
  const namespace = `r${crypto.randomUUID().slice(0, 8)}`;
  const socket = `${dir}/data/containerd.sock`;
  return {
    host,
    open: () =>
      openRuntime({
        dataDir: `${dir}/data`,
        stateDir: `${dir}/state`,
        containerdSocket: socket,
        containerdNamespace: namespace,
        cniPath: ["/usr/lib/cni"],
        subnet: "192.168.127.0/24",
        logLimits: { maxBytes: 1 << 20, maxFiles: 2 },
        log: silentLog,
        openImages: async ({ client }) => ({
          ...await testImages(client),
          [Symbol.asyncDispose]: () => Promise.resolve(),
        }),
        network: { run: host.runCommand, writeSysctl: host.writeSysctl },
      }),
    async [Symbol.asyncDispose]() {
      await sweepContainerd({ dir, socket, namespaces: [namespace] });
      await host[Symbol.asyncDispose]();
    },
  };
}

function spec(options: Partial<ContainerSpec> = {}): ContainerSpec {
  const id = `c${crypto.randomUUID().slice(0, 8)}`;
  return {
    id,
    image: TEST_IMAGE,
    milliCpus: 500,
    memoryBytes: 64 << 20,
    pidsLimit: 32,
    env: ["GREETING=hi"],
    args: [
      "sh",
      "-c",
      "echo $GREETING from $HOSTNAME; mkdir -p /tmp/www; echo page > /tmp/www/i; " +
      "busybox httpd -f -p 8080 -h /tmp/www & trap 'exit 0' TERM; while :; do sleep 0.05; done",
    ],
    tty: false,
    stdin: false,
    hostname: id,
    runtime: { name: "runc", options: {} },
    labels: {},
    ...options,
  };
}

async function firstLine(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  for await (const chunk of chunks) return new TextDecoder().decode(chunk).split("\n")[0];
  return "";
}

Deno.test("containers run on while agent and containerd are stopped, and the next agent takes them over", async () => {
  await using there = await place();
  const wanted = spec();
  const { id } = wanted;
  let before;
  {
    await using runtime = await there.open();
    assert.equal(runtime.containerd.isPrivate, true);
    before = await runtime.engine.create(wanted);
    assert.equal(await firstLine(runtime.engine.logs(id, { follow: true })), `hi from ${id}`);
    const session = await runtime.engine.exec(id, { args: ["id"], user: "web" });
    let output = "";
    for await (const { data } of session.output) output += new TextDecoder().decode(data);
    assert.equal(await session.exitCode, 0);
    assert.match(output, /uid=33\S* gid=34/);
    await session[Symbol.asyncDispose]();
  }
  const page = async () =>
    // Its line is in the log before its server is up.
    (await there.host.run(
      ...["curl", "-sf", "--retry", "9", "--retry-connrefused", `http://${before.address}:8080/i`] as const,
    )).stdout;
  assert.equal(await page(), "page\n", "the container serves without agent and containerd");
  {
    await using runtime = await there.open();
    assert.deepEqual(await runtime.engine.list(), [before]);
    await runtime.engine.collectGarbage();
    assert.equal(await page(), "page\n");
    await runtime.engine.remove(id);
    assert.deepEqual(await runtime.engine.list(), []);
    const report = await runtime.engine.collectGarbage();
    assert.ok(Object.values(report).every((count) => count === 0), JSON.stringify(report));
    assert.deepEqual(await there.host.guestNetns(), []);
  }
});

Deno.test("a container that ended while no agent was there is shown as stopped, and can be restarted", async () => {
  await using there = await place();
  const wanted = spec();
  {
    await using runtime = await there.open();
    await runtime.engine.create(wanted);
    const { pid } = await runtime.engine.get(wanted.id);
    await runtime[Symbol.asyncDispose]();
    Deno.kill(pid, "SIGKILL");
    // The shim has it from the kernel when it is no zombie either.
    while (await Deno.stat(`/proc/${pid}`).then(() => true, () => false));
  }
  await using runtime = await there.open();
  assert.match((await runtime.engine.get(wanted.id)).status, /^(stopped|no-task)$/);
  assert.equal((await runtime.engine.restart(wanted.id)).status, "running");
  await runtime.engine.remove(wanted.id);
});

Deno.test("a container that starts again with another address finds it in its /etc/hosts", async () => {
  await using there = await place();
  await using runtime = await there.open();
  const { engine, networks } = runtime;
  const wanted = spec({ args: ["sleep", "1000"] });
  const { id } = wanted;
  const first = await engine.create(wanted);
  Deno.kill(first.pid, "SIGKILL");
  const end = new AbortController();
  for await (const event of engine.watch(end.signal)) {
    if (event.type === "exit" || (await engine.get(id)).status !== "running") break;
  }
  end.abort();
  await networks.detach(id);
  const second = await engine.restart(id);
  assert.notEqual(second.address, first.address);
  const session = await engine.exec(id, { args: ["cat", "/etc/hosts"] });
  let hosts = "";
  for await (const { data } of session.output) hosts += new TextDecoder().decode(data);
  assert.equal(await session.exitCode, 0);
  await session[Symbol.asyncDispose]();
  assert(hosts.includes(`${second.address}\t${id}\n`), hosts);
  assert(!hosts.includes(`${first.address}\t`), hosts);
  await engine.remove(id, { graceMs: 0 });
});

Deno.test("a gVisor container starts, is killed and restarted, and leaves nothing", async () => {
  await using there = await place();
  await using runtime = await there.open();
  const wanted = spec({ runtime: { name: "runsc", options: {} }, memoryBytes: 256 << 20, pidsLimit: 512 });
  const info = await runtime.engine.create(wanted);
  assert.equal(info.runtime, "runsc");
  assert.equal(await firstLine(runtime.engine.logs(wanted.id, { follow: true })), `hi from ${wanted.id}`);
  Deno.kill(info.pid, "SIGKILL");
  const end = new AbortController();
  for await (const event of runtime.engine.watch(end.signal)) {
    const { status } = await runtime.engine.get(wanted.id);
    if (status !== "running" || event.type === "exit") break;
  }
  end.abort();
  await runtime.engine.restart(wanted.id);
  await runtime.engine.remove(wanted.id, { graceMs: 500 });
  assert.deepEqual(await runtime.engine.list(), []);
  assert.deepEqual(await there.host.guestNetns(), []);
});
