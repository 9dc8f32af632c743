import assert from "node:assert/strict";
import { startContainerd, sweepContainerd } from "../../tests/support/containerd.ts";
import { RuntimeError } from "../errors.ts";
import { silentLog } from "../log.ts";
import { ContainerdClient } from "./client.ts";
import { waitUntilReady } from "./ready.ts";
import { ContainerdSupervisor, type ContainerdSupervisorOptions, isSupported } from "./supervisor.ts";

/** Directories for a private containerd; dispose ends it, whoever started it. */
async function place() {
  const dir = await Deno.makeTempDir({ prefix: "hc-sup-" });
  const socket = `${dir}/data/containerd.sock`;
  return {
    dir,
    socket,
    supervisor: (options: Partial<ContainerdSupervisorOptions> = {}) =>
      new ContainerdSupervisor({
        socket,
        namespace: "test",
        dataDir: `${dir}/data`,
        stateDir: `${dir}/state`,
        log: silentLog,
        ...options,
      }),
    pid: async () => Number(await Deno.readTextFile(`${dir}/data/containerd/containerd.pid`)),
    async [Symbol.asyncDispose]() {
      await sweepContainerd({ dir, socket, namespaces: [] });
    },
  };
}

async function reach(socket: string): Promise<string> {
  await using client = new ContainerdClient({ socket, namespace: "test" });
  return await waitUntilReady(client, { timeoutMs: 30_000 });
}

const isAlive = async (pid: number) =>
  await Deno.readTextFile(`/proc/${pid}/stat`).then((stat) => !/\) Z /.test(stat), () => false);

Deno.test("the supervisor uses the containerd that answers at the socket and starts none", async () => {
  await using containerd = await startContainerd();
  await using there = await place();
  await using supervisor = there.supervisor({ socket: containerd.socket });
  const info = await supervisor.start();
  assert.equal(info.socket, containerd.socket);
  assert.equal(info.isPrivate, false);
  assert.equal(info.snapshotter, "overlayfs");
  assert.match(info.version, /^v?\d/);
  await supervisor[Symbol.asyncDispose]();
  await containerd.client().version.version({});
  await assert.rejects(Deno.stat(`${there.dir}/data`), Deno.errors.NotFound);
});

Deno.test("the supervisor starts a private containerd, and stops it when disposed", async () => {
  await using there = await place();
  const supervisor = there.supervisor({ socket: `${there.dir}/elsewhere.sock` });
  const info = await supervisor.start();
  assert.deepEqual([info.isPrivate, info.socket], [true, there.socket]);
  await reach(info.socket);
  const pid = await there.pid();
  await supervisor[Symbol.asyncDispose]();
  assert.equal(await isAlive(pid), false);
});

Deno.test("the supervisor starts a killed private containerd again", async () => {
  await using there = await place();
  await using supervisor = there.supervisor();
  const { socket } = await supervisor.start();
  const first = await there.pid();
  Deno.kill(first, "SIGKILL");
  while (supervisor.restarts === 0) await reach(socket).catch(() => {});
  await reach(socket);
  assert.notEqual(await there.pid(), first);
});

Deno.test("a second supervisor takes over the private containerd that the first left, and restarts it too", async () => {
  await using there = await place();
  const first = there.supervisor();
  await first.start();
  const pid = await there.pid();
  // The first agent is gone without a word: its supervisor is never disposed while the second one works.
  await using second = there.supervisor();
  const info = await second.start();
  assert.equal(info.isPrivate, true);
  assert.equal(await there.pid(), pid);
  await second[Symbol.asyncDispose]();
  assert.equal(await isAlive(pid), false);
  await first[Symbol.asyncDispose]();
});

Deno.test("a private containerd whose pid an agent did not live to write down is taken over all the same", async () => {
  await using there = await place();
  const first = there.supervisor();
  await first.start();
  const pid = await there.pid();
  await Deno.remove(`${there.dir}/data/containerd/containerd.pid`);
  await using second = there.supervisor();
  assert.equal((await second.start()).isPrivate, true);
  assert.equal(await there.pid(), pid);
  await second[Symbol.asyncDispose]();
  assert.equal(await isAlive(pid), false);
  await first[Symbol.asyncDispose]();
});

Deno.test("without the program there is one error that says what to do", async () => {
  await using there = await place();
  await using supervisor = there.supervisor({ binary: "containerd-that-is-not-there" });
  await assert.rejects(supervisor.start(), (error) => {
    assert.ok(error instanceof RuntimeError && error.code === "precondition");
    assert.match(error.message, /^Cannot start containerd: there is no program .*install containerd/);
    return true;
  });
});

Deno.test("a containerd that ends at once gives an error with the end of its log", async () => {
  await using there = await place();
  await Deno.mkdir(`${there.dir}/data/containerd`, { recursive: true });
  await Deno.writeTextFile(`${there.dir}/data/containerd/root`, "a file where a directory must be");
  await using supervisor = there.supervisor();
  await assert.rejects(supervisor.start(), (error) => {
    assert.ok(error instanceof RuntimeError && error.code === "failed");
    assert.match(error.message, /^Cannot start containerd: it ended; .*not a directory/s);
    return true;
  });
});

Deno.test("a data dir that can't be written, or whose socket path is too long, is named", async () => {
  await using there = await place();
  await Deno.writeTextFile(`${there.dir}/data`, "a file");
  await using blocked = there.supervisor();
  await assert.rejects(blocked.start(), /Cannot start containerd in ".*\/data\/containerd": /);
  const deep = `${there.dir}/${"d".repeat(100)}`;
  await using long = there.supervisor({ dataDir: deep, socket: `${deep}/containerd.sock` });
  await assert.rejects(long.start(), /may have 101 bytes and has \d+; choose a shorter data dir/);
});

Deno.test("releases before 1.6 are not supported", () => {
  const versions = ["1.4.13~ds1", "1.5.9", "1.6.20~ds1", "v1.7.24", "2.0.5", "v2.1.4+unknown", "devel"];
  assert.deepEqual(versions.map(isSupported), [false, false, true, true, true, true, true]);
});
