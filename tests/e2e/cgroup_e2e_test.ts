import assert from "node:assert/strict";
import { readCgroup, readCgroupLimits } from "../support/cgroup.ts";
import { busyboxImage } from "../support/images.ts";
import { LiveAgent, until } from "./live_agent.ts";
import { residueOf } from "./residue.ts";

const IMAGE = "test/web:1";
const MIB = 1 << 20;

Deno.test("the kernel holds a workload to its limits and devices, and of its cgroups nothing stays", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage({ text: "Hello.\n" }), IMAGE);
  const before = await residueOf(agent, []);

  const limits = ["--cpu", "0.5", "--mem", "64", "--pids-limit", "20"];
  const id = await agent.spawn("--image-ref", IMAGE, "--ports", "8080:8080", ...limits);
  await until("the page comes", async () => (await agent.page(id)) === "Hello.\n");
  const cgroup = { namespace: agent.namespace, id };
  const { cpuQuotaUs, cpuPeriodUs, memoryBytes, swapBytes = 0, pids } = readCgroupLimits(cgroup);
  assert.deepEqual([cpuQuotaUs, cpuPeriodUs], [50_000, 100_000]);
  assert.deepEqual([memoryBytes, swapBytes, pids], [64 * MIB, 0, 20]);

  assert.equal(await agent.ok("exec", id, "--", "sh", "-c", "echo in it | tee /proc/1/fd/1"), "in it\n");
  await until("the log has it", async () => (await agent.ok("logs", id)).includes("in it"));

  // Device nodes that only the host can make; /dev/fuse opens for whoever may use the device.
  const pid = Number(readCgroup(cgroup, { controller: "pids", file: "cgroup.procs" })?.split("\n")[0]);
  await agent.host.run("mknod", "-m", "666", `/proc/${pid}/root/dev/allowed`, "c", "1", "5");
  await agent.host.run("mknod", "-m", "666", `/proc/${pid}/root/dev/other`, "c", "10", "229");
  assert.equal((await agent.cli(["exec", id, "--", "sh", "-c", ": </dev/allowed"])).code, 0);
  const other = await agent.cli(["exec", id, "--", "sh", "-c", ": </dev/other"]);
  assert.match(other.err, /Operation not permitted/);

  await agent.ok("stop", id);
  const { agentFds: _, containerdFds: __, ...after } = await residueOf(agent, [id]);
  const { agentFds: _before, containerdFds: __before, ...expected } = before;
  assert.deepEqual(after, expected);
});
