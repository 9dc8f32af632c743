import assert from "node:assert/strict";
import { containerdVersions } from "../support/containerd_versions.ts";
import { busyboxImage } from "../support/images.ts";
import { killAndWait, LiveAgent, until } from "./live_agent.ts";
import { type Residue, residueOf } from "./residue.ts";

const IMAGE = "test/web:1";
const WEB = ["--image-ref", IMAGE, "--mem", "64", "--ports", "8080:8080"];

const versions = await containerdVersions();

for (const { name, binDir } of versions) {
  Deno.test(`on containerd ${name} an agent serves a workload through every restart and leaves nothing`, async () => {
    await using agent = await LiveAgent.start({ containerdDir: binDir });
    assert.equal(await versionInUse(agent), await versionIn(binDir));
    await agent.load(busyboxImage(), IMAGE);
    const before = await remains(agent, []);
    const id = await agent.spawn(...WEB);
    await works(agent, id);
    await killAndWait(agent.containerdPid);
    await until("containerd is back", () => agent.isReady());
    await works(agent, id);
    await agent.end("SIGTERM");
    await agent.run();
    await works(agent, id);
    await agent.ok("stop", id);
    let after: Residue = {};
    // containerd removes what it no longer needs in its own time.
    await until("everything is as before", async () => {
      after = await remains(agent, [id]);
      return JSON.stringify(after) === JSON.stringify(before);
    }).catch(() => {});
    assert.deepEqual(after, before);
  });
}

Deno.test("workloads of an older containerd run on under each newer one, and stop there", async () => {
  await using agent = await LiveAgent.start({ containerdDir: versions[0].binDir });
  await agent.load(busyboxImage(), IMAGE);
  const before = await remains(agent, []);
  const ids: string[] = [];
  for (const { binDir } of versions) {
    if (binDir !== agent.containerdDir) {
      await agent.end("SIGTERM");
      agent.containerdDir = binDir;
      await agent.run();
    }
    assert.equal(await versionInUse(agent), await versionIn(binDir));
    ids.push(await agent.spawn(...WEB));
    for (const id of ids) await works(agent, id);
  }
  for (const id of ids) await agent.ok("stop", id);
  let after: Residue = {};
  await until("everything is as before", async () => {
    after = await remains(agent, ids);
    return JSON.stringify(after) === JSON.stringify(before);
  }).catch(() => {});
  assert.deepEqual(after, before);
});

/** It was never started again, its page comes, commands run in it, and its log can be read. */
async function works(agent: LiveAgent, id: string): Promise<void> {
  await until("the page comes", async () => (await agent.page(id)).startsWith("Hello"));
  const { states } = await api(agent, "/list");
  const workload = states[0].workloads.find((workload: { id: string }) => workload.id === id);
  assert.deepEqual([workload?.status, workload?.generation], ["running", 1]);
  // The server is up before its starter has said so.
  await until("its line is in the log", async () => {
    return await api(agent, `/logs?id=${id}`) === "serving on port 8080\n";
  });
  const piped = await agent.cli(["exec", "-i", id, "sh", "-c", "cat; exit 7"], { stdin: "through" });
  assert.deepEqual(piped, { code: 7, out: "through", err: "" });
}

/** What the HTTP API answers; a command of its own would take a Deno's start each time. */
// deno-lint-ignore no-explicit-any
async function api(agent: LiveAgent, path: string): Promise<any> {
  const token = (await Deno.readTextFile(`${agent.dataDir}/token`)).trim();
  const answer = await agent.curl("-H", `Authorization: Bearer ${token}`, `http://127.0.0.1:8001${path}`);
  return JSON.parse(answer).response;
}

/** What is there for the agent, without what another process of it or of containerd has open. */
async function remains(agent: LiveAgent, ids: readonly string[]): Promise<Residue> {
  const { agentFds: _, containerdFds: __, ...rest } = await residueOf(agent, ids);
  return rest;
}

async function versionInUse(agent: LiveAgent): Promise<string> {
  return JSON.parse(await agent.ok("info", "--json")).containerd.version;
}

async function versionIn(binDir?: string): Promise<string> {
  const program = binDir === undefined ? "containerd" : `${binDir}/containerd`;
  const { stdout } = await new Deno.Command(program, { args: ["--version"] }).output();
  return new TextDecoder().decode(stdout).split(" ")[2];
}
