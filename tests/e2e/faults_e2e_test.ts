import assert from "node:assert/strict";
import { busyboxImage } from "../support/images.ts";
import {
  commandLine,
  DEADLINE_MS,
  type Inventory,
  killAndWait,
  LiveAgent,
  type Outcome,
  until,
} from "./live_agent.ts";

const IMAGE = "test/web:1";
/** Between two looks at what has appeared, milliseconds: small against the steps of a spawn. */
const LOOK_MS = 1;

type Victim = "agent" | "containerd" | "shim" | "container";

/** What appears in the course of a spawn, in this order; seen from outside, by files. */
const ARTEFACTS = {
  record: (agent: LiveAgent) => entries(`${agent.dataDir}/network/guests`).length > 0,
  netns: (_agent: LiveAgent, id?: string) => id !== undefined && exists(`/run/netns/hc-${id}`),
  address: (agent: LiveAgent) =>
    entries(`${agent.dataDir}/network/ipam/hypercore`).some((name) => /^\d+\./.test(name)),
  log: (agent: LiveAgent) => entries(`${agent.dataDir}/logs`).length > 0,
  spec: (agent: LiveAgent) => entries(`${agent.dataDir}/containers`).length > 0,
  bundle: (agent: LiveAgent, id?: string) => id !== undefined && bundles(agent).includes(id),
  shim: (agent: LiveAgent, id?: string) => id !== undefined && agent.shimPids(id).length > 0,
  cgroup: (agent: LiveAgent, id?: string) =>
    [`/sys/fs/cgroup/pids`, "/sys/fs/cgroup"].some((root) => exists(`${root}/${agent.namespace}/${id}`)),
  process: (agent: LiveAgent) => initPid(agent) !== undefined,
} as const;
type Artefact = keyof typeof ARTEFACTS;

Deno.test("kill -9 of agent, containerd, shim or container at every step of a spawn converges with no leak", async (t) => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const before = await agent.inventory();
  const rounds: [Victim, Artefact][] = [
    ...(["record", "netns", "address", "log", "spec", "bundle", "shim", "cgroup", "process"] as const)
      .flatMap((artefact) =>
        (["agent", "containerd"] as const).map((victim): [Victim, Artefact] => [victim, artefact])
      ),
    ["shim", "shim"],
    ["shim", "process"],
    ["container", "process"],
  ];
  for (const [victim, artefact] of rounds) {
    await t.step(`${victim}, once there is its ${artefact}`, async () => {
      const spawning = agent.cli([
        "spawn",
        "--image-ref",
        IMAGE,
        "--mem",
        "64",
        "--ports",
        "8080:8080",
        "--json",
      ]);
      await appears(agent, { artefact, spawning });
      await kill(agent, victim);
      const { code, out } = await spawning;
      if (victim === "agent") await agent.run();
      await settles(agent, before);
      const workloads = await agent.list();
      if (code === 0) {
        // What was promised is kept.
        const { id } = JSON.parse(out);
        assert.deepEqual(workloads.map((workload) => workload.id), [id]);
        await until("its page comes", async () => (await agent.page(id)).startsWith("Hello"));
      }
      for (const { id } of workloads) await agent.ok("stop", String(id), "--grace", "0");
      assert.deepEqual(await agent.inventory(), before);
    });
  }
});

Deno.test("kill -9 of agent, containerd, shim or container at every step of a stop ends with nothing left", async (t) => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const before = await agent.inventory();
  const goes = ["begun", "process", "cgroup", "netns", "address", "spec"] as const;
  const rounds: [Victim, typeof goes[number]][] = [
    ...goes.flatMap((artefact) =>
      (["agent", "containerd"] as const).map((victim) => [victim, artefact] as const)
    ),
    ["shim", "begun"],
    ["container", "begun"],
  ].map(([victim, artefact]) => [victim as Victim, artefact as typeof goes[number]]);
  for (const [victim, artefact] of rounds) {
    await t.step(
      `${victim}, once ${artefact === "begun" ? "it has begun" : `its ${artefact} is gone`}`,
      async () => {
        const id = await agent.spawn("--image-ref", IMAGE, "--mem", "64", "--ports", "8080:8080");
        const stopping = agent.cli(["stop", id, "--grace", "300"]);
        if (artefact === "begun") {
          await until("it is stopping", async () => {
            const [workload] = await agent.list();
            return workload === undefined || workload.status === "stopping";
          });
        } else await disappears(agent, { artefact, id });
        await kill(agent, victim);
        await stopping;
        if (victim === "agent") await agent.run();
        // A stop that has begun is carried on; one that was cut off before is asked for again.
        await until("it is gone", async () => {
          const workloads = await agent.list();
          if (workloads.length > 0 && workloads[0].status !== "stopping") {
            await agent.cli(["stop", id, "--grace", "0"]);
          }
          return workloads.length === 0;
        });
        await settles(agent, before);
      },
    );
  }
});

Deno.test("requests do not notice that containerd is killed and comes back, nor is a log line lost", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const counter = "httpd -p 8080 -h /www; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done";
  const id = await agent.spawn(
    ...["--image-ref", IMAGE, "--mem", "64", "--ports", "8080:8080", "--", "/bin/sh", "-c", counter],
  );
  await until("the page comes", async () => (await agent.page(id)).startsWith("Hello"));
  const stopFile = `${agent.dir}/enough`;
  const loop = `while ! [ -e ${stopFile} ]; do curl -sf -m 10 -o /dev/null -H 'Host: ${id}.example.com' ` +
    `http://127.0.0.1:8080/ && echo ok || echo failed $?; done`;
  const requests = agent.host.spawn("sh", ["-c", loop], { stdin: "null", stdout: "piped", stderr: "null" })
    .output();
  for (let round = 0; round < 3; round++) {
    await killAndWait(agent.containerdPid);
    await until("containerd is back", () => agent.isReady());
  }
  const follower = agent.spawnCli(["logs", "-f", id], { stderr: "null" });
  let followed = "";
  const following = (async () => {
    for await (const text of follower.stdout.pipeThrough(new TextDecoderStream())) followed += text;
  })();
  await until("the log is followed", () => followed !== "");
  await killAndWait(agent.containerdPid);
  await until("containerd is back", () => agent.isReady());
  const seen = (await agent.ok("logs", id, "--tail", "1")).trim();
  await until("the log goes on", async () => (await agent.ok("logs", id, "--tail", "1")).trim() !== seen);
  await until(
    "its follower has more of it",
    () => followed.includes(`${seen}\n`) && !followed.endsWith(`${seen}\n`),
  );
  follower.kill("SIGINT");
  await Deno.writeTextFile(stopFile, "");
  const outcomes = new TextDecoder().decode((await requests).stdout).trim().split("\n");
  assert.ok(outcomes.length > 20);
  assert.deepEqual(outcomes.filter((line) => line !== "ok"), []);
  const [{ generation, restarts }] = await agent.list();
  assert.deepEqual({ generation, restarts }, { generation: 1, restarts: 0 });
  assertGapless(await agent.ok("logs", id));
  await following;
  assertGapless(followed);
});

Deno.test("an agent that is killed loses no workload, route or log line, and sees what happened meanwhile", async () => {
  await using agent = await LiveAgent.start();
  await agent.load(busyboxImage(), IMAGE);
  const counter = "httpd -p 8080 -h /www; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done";
  const web = ["--image-ref", IMAGE, "--mem", "64", "--ports", "8080:8080", "--", "/bin/sh", "-c", counter];
  const [kept, ended] = [await agent.spawn(...web), await agent.spawn(...web)];
  // An error page of the proxy would do for what is not empty.
  for (const id of [kept, ended]) {
    await until("both serve", async () => (await agent.page(id)).startsWith("Hello"));
  }
  const pid = JSON.parse(await agent.ok("inspect", ended)).pid;
  await agent.end("SIGKILL");
  await killAndWait(agent.containerdPid);
  await killAndWait(pid);
  await agent.run();
  assert.match(await agent.page(kept), /^Hello/);
  await until(
    "the other one has restarted under its id",
    async () => (await agent.page(ended)).startsWith("Hello"),
  );
  const states = new Map((await agent.list()).map((workload) => [workload.id, workload]));
  assert.deepEqual([states.get(kept)!.restarts, states.get(kept)!.generation], [0, 1]);
  assert.deepEqual([states.get(ended)!.restarts, states.get(ended)!.generation], [1, 2]);
  assertGapless(await agent.ok("logs", kept));
});

/** `line 1`, `line 2`, … */
function assertGapless(log: string): void {
  const lines = log.split("\n").slice(0, -1);
  assert.ok(lines.length > 10);
  lines.forEach((line, index) => assert.equal(line, `line ${index + 1}`));
}

/** Kills at once; what there is of the one workload, if that is meant. */
async function kill(agent: LiveAgent, victim: Victim): Promise<void> {
  switch (victim) {
    case "agent":
      return await agent.end("SIGKILL");
    case "containerd":
      return await killAndWait(agent.containerdPid);
    case "shim": {
      const [pid] = agent.shimPids(workloadId(agent) ?? "");
      return pid === undefined ? undefined : await killAndWait(pid);
    }
    case "container": {
      const pid = initPid(agent);
      return pid === undefined ? undefined : await killAndWait(pid);
    }
  }
}

/** Waits until nothing is half-made: no workload, or one that runs; and no more than it needs. */
async function settles(agent: LiveAgent, before: Inventory): Promise<void> {
  let now: Inventory | undefined;
  try {
    await until("it is settled", async () => {
      if (!await agent.isReady()) return false;
      now = await agent.inventory();
      const workloads = await agent.list();
      if (workloads.some(({ status }) => status !== "running")) return false;
      if (workloads.length === 0) return JSON.stringify(now) === JSON.stringify(before);
      return now.containers.length === workloads.length && now.netns.length === workloads.length &&
        now.leases.length === 0;
    });
  } catch (error) {
    assert.deepEqual(now, before);
    throw error;
  }
}

async function appears(
  agent: LiveAgent,
  what: { artefact: Artefact; spawning: Promise<Outcome> },
): Promise<void> {
  const { artefact, spawning } = what;
  const endMs = performance.now() + DEADLINE_MS;
  let outcome: Outcome | undefined;
  void spawning.then((ended) => outcome = ended);
  while (!ARTEFACTS[artefact](agent, workloadId(agent))) {
    if (outcome !== undefined) throw new Error(`${artefact} never appeared: ${JSON.stringify(outcome)}`);
    if (performance.now() > endMs) throw new Error(`${artefact} never appeared`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

async function disappears(
  agent: LiveAgent,
  what: { artefact: Exclude<Artefact, "record">; id: string },
): Promise<void> {
  const { artefact, id } = what;
  const endMs = performance.now() + DEADLINE_MS;
  while (ARTEFACTS[artefact](agent, id)) {
    if (performance.now() > endMs) throw new Error(`${artefact} never went`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** Id of the one workload there is, from the first of its files. */
function workloadId(agent: LiveAgent): string | undefined {
  const [file] = entries(`${agent.dataDir}/network/guests`).filter((name) => name.endsWith(".json"));
  return file?.replace(/\.json$/, "");
}

function bundles(agent: LiveAgent): string[] {
  return entries(`${agent.stateDir}/containerd/io.containerd.runtime.v2.task/${agent.namespace}`);
}

/** Process 1 of the one container there is, once it runs; a killed containerd may have left bundles of others. */
function initPid(agent: LiveAgent): number | undefined {
  const dir = `${agent.stateDir}/containerd/io.containerd.runtime.v2.task/${agent.namespace}`;
  return bundles(agent).map((id) => Number(readIfThere(`${dir}/${id}/init.pid`)))
    // Before the start it is still the runtime's.
    .find((pid) => pid > 1 && commandLine(pid).some((word) => word.includes("/bin/start")));
}

function readIfThere(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

function entries(dir: string): string[] {
  try {
    return [...Deno.readDirSync(dir)].map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}
