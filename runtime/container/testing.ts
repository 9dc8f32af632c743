import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { OptionsSchema } from "../../proto/gen/containerd/runc/v1/options_pb.ts";
import { startContainerd, type TestContainerd } from "../../tests/support/containerd.ts";
import { TestHost } from "../../tests/support/host.ts";
import { anyMessage } from "../containerd/any.ts";
import type { ContainerdClient } from "../containerd/client.ts";
import type { ContainerSpec } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import { ContainerIo } from "../io/mod.ts";
import { type Log, silentLog } from "../log.ts";
import { GuestNetworks } from "../network/mod.ts";
import { type EngineContext, listContainers } from "./context.ts";
import { ContainerdEngine } from "./engine.ts";
import { shimSocket } from "./lost_processes.ts";
import type { Images, Runtimes, SpecBuilder } from "./ports.ts";

/** The one image there is. */
export const TEST_IMAGE = "test/busybox:1";

const BASE_SNAPSHOT = "sha256:base";
const APPLETS = [
  "sh",
  "cat",
  "echo",
  "sleep",
  "kill",
  "tail",
  "true",
  "false",
  "touch",
  "test",
  "id",
  "httpd",
];

/** What a bench is told. */
export interface EngineBenchOptions {
  /** Folder with another containerd than the PATH's. */
  binDir?: string;
  observe?: EngineContext["observe"];
  /** How long clean-up waits for a containerd that is away, in milliseconds. */
  absenceMs?: number;
  log?: Log;
}

/**
 * A real containerd, guest networks and streams under a {@linkcode ContainerdEngine}, for tests: a base snapshot
 * stands for the image, a small spec for the real one. The host's network is the test's own.
 */
export class EngineBench implements AsyncDisposable {
  readonly client: ContainerdClient;
  /** Set to see, or fail, steps of whatever engine there is. */
  observe?: EngineContext["observe"];
  engine!: ContainerdEngine;
  io!: ContainerIo;
  readonly #log: Log;
  readonly #absenceMs: number | undefined;
  #before = new Map<string, string>();
  #images!: Images;
  readonly #ids: string[] = [];

  private constructor(
    readonly containerd: TestContainerd,
    readonly host: TestHost,
    options: EngineBenchOptions,
  ) {
    this.client = containerd.client();
    this.observe = options.observe;
    this.#log = options.log ?? silentLog;
    this.#absenceMs = options.absenceMs;
  }

  static async start(options: EngineBenchOptions = {}): Promise<EngineBench> {
    await using undo = new AsyncDisposableStack();
    const containerd = undo.use(await startContainerd({ binDir: options.binDir }));
    const host = undo.use(await TestHost.create());
    const bench = new EngineBench(containerd, host, options);
    bench.#images = await testImages(bench.client);
    await bench.newAgent();
    // The first guest brings CNI's base chains, which stay.
    const id = bench.id();
    await bench.engine.create(bench.spec(id));
    await bench.engine.remove(id, { graceMs: 0 });
    bench.#before = await bench.#state();
    undo.move();
    return bench;
  }

  /** An engine as a restarted agent has it: nothing in memory. The one before is dropped as if killed. */
  async newAgent(): Promise<ContainerdEngine> {
    await this.io?.[Symbol.asyncDispose]();
    const { scratch } = this.containerd;
    this.io = new ContainerIo({
      client: this.client,
      logDir: `${scratch}/logs`,
      stateDir: `${scratch}/io`,
      limits: { maxBytes: 1 << 20, maxFiles: 2 },
      resolveUser: () => Promise.resolve({ uid: 0, gid: 0, groups: [] }),
      log: this.#log,
    });
    await this.io.start();
    const network = new GuestNetworks({
      dataDir: scratch,
      subnet: "192.168.127.0/24",
      cniPath: ["/usr/lib/cni"],
      log: this.#log,
      run: this.host.runCommand,
      writeSysctl: this.host.writeSysctl,
    });
    await network.ensureHost();
    this.engine = new ContainerdEngine({
      client: this.client,
      images: this.#images,
      network,
      specs: this.#specs,
      runtimes: this.#runtimes,
      io: this.io,
      snapshotter: "overlayfs",
      runtimeStateRoot: this.containerd.runcRoot,
      log: this.#log,
      isPrivate: true,
      absenceMs: this.#absenceMs,
      observe: (operation, step, id) => this.observe?.(operation, step, id),
    });
    return this.engine;
  }

  /** A container id nobody else has. */
  id(): string {
    const id = `c${crypto.randomUUID().slice(0, 8)}`;
    this.#ids.push(id);
    return id;
  }

  /** A container that runs until it is stopped, unless `args` say otherwise. */
  spec(id: string, options: Partial<ContainerSpec> = {}): ContainerSpec {
    return {
      id,
      image: TEST_IMAGE,
      milliCpus: 1000,
      memoryBytes: 64 << 20,
      pidsLimit: 64,
      env: [],
      // USR1 makes it use memory without end.
      args: ["sh", "-c", "trap 'exit 7' TERM; trap 'exec tail /dev/zero' USR1; while :; do sleep 0.05; done"],
      tty: false,
      stdin: false,
      hostname: id,
      runtime: { name: "runc", options: {} },
      labels: {},
      ...options,
    };
  }

  /**
   * What is on the machine and was not when the bench began: containers, tasks, snapshots, leases, netns, links,
   * rules, CNI leases, cgroups, logs, FIFOs, runc state, shims. Empty when nothing leaked.
   */
  async leftovers(): Promise<string[]> {
    const now = await this.#state();
    const leaks: string[] = [];
    for (const [what, value] of now) {
      if (value !== this.#before.get(what)) leaks.push(`${what}: ${value} (was: ${this.#before.get(what)})`);
    }
    return leaks;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using stack = new AsyncDisposableStack();
    stack.use(this.containerd);
    stack.use(this.host);
    stack.use(this.io);
    await this.engine[Symbol.asyncDispose]();
  }

  async #state(): Promise<Map<string, string>> {
    const { client } = this;
    const { scratch, namespace, runcRoot } = this.containerd;
    const snapshots: string[] = [];
    for await (const { info } of client.snapshots.list({ snapshotter: "overlayfs" })) {
      snapshots.push(...info.map((snapshot) => snapshot.name));
    }
    const rules = await this.host.run("nft", "list", "ruleset");
    const links = await this.host.run("ip", "-br", "link");
    const netns = await this.host.guestNetns();
    return new Map(Object.entries({
      containers: (await listContainers(this)).map((container) => container.id).sort().join(" "),
      tasks: (await client.tasks.list({})).tasks.map((task) => task.id).sort().join(" "),
      snapshots: snapshots.sort().join(" "),
      leases: (await client.leases.list({})).leases.map((lease) => lease.id).sort().join(" "),
      netns: netns.sort().join(" "),
      links: links.stdout.split("\n").map((line) => line.split(/[\s@]/)[0]).join(" "),
      rules: rules.stdout.replaceAll(/packets \d+ bytes \d+/g, "").split(/^(?=table )/m).sort().join(""),
      guests: names(`${scratch}/network/guests`),
      addresses: names(`${scratch}/network/ipam/hypercore`, /^(lock|last_reserved)/),
      logs: names(`${scratch}/logs`),
      stdin: names(`${scratch}/io/stdin`),
      runc: names(`${runcRoot}/${namespace}`),
      cgroups: cgroups(namespace),
      shims: this.containerd.shims().join(" "),
      shimSockets: this.#ids.filter((id) => isThere(shimSocket(client, id))).join(" "),
    }));
  }

  readonly #runtimes: Runtimes = {
    working: () => Promise.resolve(["runc"]),
    resolve: () =>
      Promise.resolve({
        name: "io.containerd.runc.v2",
        options: anyMessage(OptionsSchema, create(OptionsSchema, { root: this.containerd.runcRoot })),
        isVm: false,
      }),
  };

  readonly #specs: SpecBuilder = {
    refresh: () => Promise.resolve(),
    release: () => Promise.resolve(),
    collectGarbage: () => Promise.resolve(0),
    build: ({ container, netnsPath }) =>
      Promise.resolve(
        runtimeSpec(container, { netnsPath, cgroupsPath: `/${this.containerd.namespace}/${container.id}` }),
      ),
  };
}

/** containerd cleans up after a killed shim in its own time; so long it may take, in milliseconds. */
const SETTLE_MS = 60_000;

/** Asserts that nothing is left, at the latest when containerd has cleaned up. */
export async function assertClean(bench: EngineBench, when: string): Promise<void> {
  const deadline = AbortSignal.timeout(SETTLE_MS);
  let leftovers = await bench.leftovers();
  while (leftovers.length > 0 && !deadline.aborted) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    leftovers = await bench.leftovers();
  }
  assert.deepEqual(leftovers, [], when);
}

/** An image store that has {@linkcode TEST_IMAGE} only: busybox, as a snapshot made by hand. */
export async function testImages(client: ContainerdClient): Promise<Images> {
  const snapshotter = "overlayfs";
  const labels = { "containerd.io/gc.root": "test" };
  try {
    const { mounts } = await client.snapshots.prepare({ snapshotter, key: "base", labels });
    const root = mounts[0].source;
    for (const dir of ["bin", "dev", "etc", "proc", "sys", "tmp"]) {
      await Deno.mkdir(`${root}/${dir}`, { recursive: true });
    }
    await Deno.writeTextFile(`${root}/etc/passwd`, "root:x:0:0::/:/bin/sh\nweb:x:33:34::/tmp:/bin/sh\n");
    await Deno.copyFile("/bin/busybox", `${root}/bin/busybox`);
    for (const applet of APPLETS) await Deno.symlink("busybox", `${root}/bin/${applet}`);
    await client.snapshots.commit({ snapshotter, name: BASE_SNAPSHOT, key: "base", labels });
  } catch (error) {
    // Of the agent before this one.
    if (!(error instanceof RuntimeError && error.code === "already-exists")) throw error;
  }
  return {
    ensure(reference) {
      if (reference !== TEST_IMAGE) {
        return Promise.reject(new RuntimeError("not-found", `Cannot pull image "${reference}": not found`));
      }
      const digest = `sha256:${"1".repeat(64)}`;
      return Promise.resolve({
        name: TEST_IMAGE,
        digest,
        chainId: BASE_SNAPSHOT,
        config: { StopSignal: "SIGTERM" },
      });
    },
  };
}

function runtimeSpec(
  container: ContainerSpec,
  options: { netnsPath: string; cgroupsPath: string },
): Record<string, unknown> {
  const namespaces = ["pid", "ipc", "uts", "mount"].map((type): { type: string; path?: string } => ({
    type,
  }));
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: container.tty,
      user: { uid: 0, gid: 0 },
      args: container.args,
      env: ["PATH=/bin", ...container.env],
      cwd: "/",
      capabilities: { bounding: ["CAP_KILL"], effective: ["CAP_KILL"], permitted: ["CAP_KILL"] },
      noNewPrivileges: true,
    },
    root: { path: "rootfs" },
    hostname: container.hostname,
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755"] },
    ],
    linux: {
      cgroupsPath: options.cgroupsPath,
      namespaces: [...namespaces, { type: "network", path: options.netnsPath }],
      resources: { memory: { limit: container.memoryBytes }, pids: { limit: container.pidsLimit } },
    },
  };
}

function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function names(dir: string, except?: RegExp): string {
  try {
    return [...Deno.readDirSync(dir)].map((entry) => entry.name).filter((name) => !except?.test(name)).sort()
      .join(" ");
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

function cgroups(namespace: string): string {
  const hierarchies = [...Deno.readDirSync("/sys/fs/cgroup")].filter((entry) => entry.isDirectory);
  const dirs = ["/sys/fs/cgroup", ...hierarchies.map((entry) => `/sys/fs/cgroup/${entry.name}`)];
  return dirs.flatMap((dir) => {
    try {
      return [...Deno.readDirSync(`${dir}/${namespace}`)].filter((entry) => entry.isDirectory)
        .map((entry) => `${dir}/${namespace}/${entry.name}`);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  }).join(" ");
}
