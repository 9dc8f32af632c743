import { ContainerdClient } from "../../runtime/containerd/client.ts";
import { containerdConfig } from "../../runtime/containerd/config.ts";
import { waitUntilReady } from "../../runtime/containerd/ready.ts";

/** What {@linkcode startContainerd} can be told. */
export interface TestContainerdOptions {
  /** Folder with `containerd` and its shims; those on the PATH by default. */
  binDir?: string;
}

/** Time a containerd may take to start, in milliseconds, on a machine that is busy with other tests. */
const START_TIMEOUT_MS = 60_000;
/** Time that killed processes may take to leave their cgroups, in milliseconds, on such a machine. */
const CGROUP_TIMEOUT_MS = 60_000;

/**
 * Starts a containerd of the test's own: temporary directory, random namespace. Dispose removes everything it and its
 * containers left on the machine, also after a test that failed half-way.
 *
 * @example
 * ```ts ignore
 * await using containerd = await startContainerd();
 * const client = containerd.client();
 * await containerd.kill9();
 * await containerd.start();
 * ```
 */
export async function startContainerd(options: TestContainerdOptions = {}): Promise<TestContainerd> {
  const dir = await Deno.makeTempDir({ prefix: "hc-ctrd-" });
  const containerd = new TestContainerd(dir, `t${crypto.randomUUID().slice(0, 8)}`, options);
  try {
    await containerd.start();
  } catch (error) {
    await containerd[Symbol.asyncDispose]();
    throw error;
  }
  return containerd;
}

/** A private containerd under test; see {@linkcode startContainerd}. */
export class TestContainerd implements AsyncDisposable {
  readonly socket: string;
  /** For the runtime option `root`, so that runc's state is inside {@linkcode dir} too. */
  readonly runcRoot: string;
  /** A scratch directory that goes with the containerd: logs, FIFOs, CNI data. */
  readonly scratch: string;
  readonly #clients: ContainerdClient[] = [];
  #process?: Deno.ChildProcess;

  constructor(readonly dir: string, readonly namespace: string, readonly options: TestContainerdOptions) {
    this.socket = `${dir}/c.sock`;
    this.runcRoot = `${dir}/runc`;
    this.scratch = `${dir}/scratch`;
    Deno.mkdirSync(this.scratch, { recursive: true });
  }

  /** A new client on the test's namespace (or another), closed on dispose. */
  client(namespace = this.namespace): ContainerdClient {
    const client = new ContainerdClient({ socket: this.socket, namespace });
    this.#clients.push(client);
    return client;
  }

  /** Of the running containerd. */
  get pid(): number {
    if (this.#process === undefined) throw new Error("containerd is not running");
    return this.#process.pid;
  }

  /** Starts it again after {@linkcode kill9} or {@linkcode stop}; resolves when it answers. */
  async start(): Promise<void> {
    if (this.#process !== undefined) return;
    const config = `${this.dir}/config.toml`;
    await Deno.writeTextFile(
      config,
      containerdConfig({
        root: `${this.dir}/root`,
        state: `${this.dir}/state`,
        socket: this.socket,
        opt: `${this.dir}/opt`,
      }),
    );
    const { binDir } = this.options;
    // The shell writes the log: a pipe would make the test its reader, and be one more thing to leak.
    this.#process = new Deno.Command("/bin/sh", {
      args: [
        "-c",
        'exec "$0" -c "$1" >>"$2" 2>&1',
        `${binDir ? `${binDir}/` : ""}containerd`,
        config,
        this.logFile,
      ],
      env: binDir ? { PATH: `${binDir}:${Deno.env.get("PATH")}` } : {},
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    await using client = new ContainerdClient({ socket: this.socket, namespace: this.namespace });
    const exited = new AbortController();
    const watch = this.#process.status.then((status) => exited.abort(new Error(`exit code ${status.code}`)));
    try {
      await waitUntilReady(client, { timeoutMs: START_TIMEOUT_MS, signal: exited.signal });
    } catch (error) {
      if (!exited.signal.aborted) await this.kill9();
      await watch;
      throw new Error(`Cannot start containerd: ${await tail(this.logFile)}`, { cause: error });
    }
  }

  get logFile(): string {
    return `${this.dir}/containerd.log`;
  }

  /** SIGTERM and start again; containers run on. */
  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** SIGTERM; resolves when it has ended. */
  stop(): Promise<void> {
    return this.#end("SIGTERM");
  }

  /** SIGKILL; resolves when it has ended. Its shims and containers run on. */
  kill9(): Promise<void> {
    return this.#end("SIGKILL");
  }

  async #end(signal: Deno.Signal): Promise<void> {
    const process = this.#process;
    if (process === undefined) return;
    this.#process = undefined;
    process.kill(signal);
    await process.status;
  }

  /** Process ids of the shims of this containerd; of one container when `id` is given. */
  shims(id?: string): number[] {
    return shimsOf(this.socket, id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) await client[Symbol.asyncDispose]();
    await this.kill9();
    await sweepContainerd({ dir: this.dir, socket: this.socket, namespaces: [this.namespace] });
  }
}

/**
 * Removes what a dead containerd left: shims (known by our own socket in their arguments), the processes in its
 * containers' cgroups, the cgroups, mounts below its directory, shim sockets and the directory.
 */
export async function sweepContainerd(
  options: { dir: string; socket: string; namespaces: readonly string[] },
): Promise<void> {
  for (const pid of shimsOf(options.socket)) kill(pid);
  for (const namespace of options.namespaces) await removeCgroups(namespace);
  for (const socket of shimSockets(options.dir)) removeIfThere(socket);
  await unmountBelow(options.dir);
  await Deno.remove(options.dir, { recursive: true });
}

function shimsOf(socket: string, id?: string): number[] {
  const pids: number[] = [];
  for (const pid of processes()) {
    const args = readText(`/proc/${pid}/cmdline`)?.split("\0") ?? [];
    if (!args[0]?.includes("containerd-shim") || args[args.indexOf("-address") + 1] !== socket) continue;
    if (id === undefined || args[args.indexOf("-id") + 1] === id) pids.push(pid);
  }
  return pids;
}

function* processes(): Iterable<number> {
  for (const entry of Deno.readDirSync("/proc")) {
    if (/^\d+$/.test(entry.name)) yield Number(entry.name);
  }
}

/** The cgroup `/<namespace>` in every hierarchy: kills what runs there, then removes the tree from the leaves up. */
async function removeCgroups(namespace: string): Promise<void> {
  const roots = ["/sys/fs/cgroup", ...directories("/sys/fs/cgroup")].map((root) => `${root}/${namespace}`);
  const isGone = () => roots.every((root) => !isDirectory(root));
  const endMs = performance.now() + CGROUP_TIMEOUT_MS;
  while (!isGone() && performance.now() < endMs) {
    for (const root of roots) {
      for (const group of treeBottomUp(root)) {
        for (const pid of readText(`${group}/cgroup.procs`)?.split("\n") ?? []) {
          if (pid !== "") kill(Number(pid));
        }
        try {
          Deno.removeSync(group);
        } catch (error) {
          // EBUSY until the kernel has let go of the killed processes.
          if (!(error instanceof Error)) throw error;
        }
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  if (!isGone()) throw new Error(`Cannot remove cgroup "${namespace}": still busy`);
}

function treeBottomUp(dir: string): string[] {
  if (!isDirectory(dir)) return [];
  return [...directories(dir).flatMap(treeBottomUp), dir];
}

function directories(dir: string): string[] {
  try {
    return [...Deno.readDirSync(dir)].filter((e) => e.isDirectory).map((e) => `${dir}/${e.name}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** Where the shims of the bundles below `dir` listen; 1.x has a plain file, 2.x JSON. */
function shimSockets(dir: string): string[] {
  const bundles = directories(`${dir}/state/io.containerd.runtime.v2.task`).flatMap(directories);
  return bundles.flatMap((bundle) => {
    const text = readText(`${bundle}/address`) ?? readText(`${bundle}/bootstrap.json`) ?? "";
    return text.match(/\/run\/containerd\/s\/[0-9a-f]{64}/) ?? [];
  });
}

async function unmountBelow(dir: string): Promise<void> {
  const points = (readText("/proc/self/mountinfo") ?? "").split("\n").map((line) => line.split(" ")[4] ?? "")
    .filter((point) => point.startsWith(`${dir}/`)).reverse();
  if (points.length > 0) {
    await new Deno.Command("umount", { args: ["-l", ...points], stderr: "null" }).output();
  }
}

function kill(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function readText(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    // A process or cgroup that ended in between; ENODEV and ESRCH have no class of their own.
    if (error instanceof Error) return undefined;
    throw error;
  }
}

function isDirectory(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function tail(file: string): Promise<string> {
  return (await Deno.readTextFile(file)).slice(-2000);
}
