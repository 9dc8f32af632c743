import { ContainerdClient } from "../../runtime/containerd/client.ts";
import { sweepContainerd } from "../support/containerd.ts";
import { TestHost } from "../support/host.ts";
import { ociLayoutTar, type TestImage } from "../support/images.ts";

/** How long anything may take, in milliseconds, on a machine that is busy with other tests. */
export const DEADLINE_MS = 60_000;

/** Where an agent's inspector listens, in the agent's own network. */
export const INSPECTOR_PORT = 9229;

const POLL_MS = 50;
const ROOT = new URL("../../", import.meta.url).pathname;
const OVERLAYFS = "overlayfs";

/** What a command printed, and its exit code. */
export interface Outcome {
  code: number;
  out: string;
  err: string;
}

/** What {@linkcode LiveAgent.start} can be told. */
export interface LiveAgentOptions {
  /** Further flags of `hypercore agent`. */
  flags?: readonly string[];
  /** Data directory; one below the agent's own directory by default. */
  dataDir?: string;
  /** Where it runs; the caller's to dispose of. A host of its own by default. */
  host?: TestHost;
  /** Node name; n1 by default. */
  name?: string;
  /** Goes before other work of a busy machine, where what the agent measures is what is tested. */
  isUrgent?: boolean;
  /** Lets its heap be looked into, at {@linkcode INSPECTOR_PORT}. */
  inspector?: boolean;
  /** Folder with another containerd and its shims than those on the PATH. */
  containerdDir?: string;
}

/** How a command is run by {@linkcode LiveAgent.cli}. */
export interface CliOptions {
  stdin?: string | Uint8Array;
  env?: Record<string, string>;
  cwd?: string;
}

/** What a node has, by kind: what a command that fails must leave as it was. */
export type Inventory = Record<
  | "workloads"
  | "containers"
  | "shims"
  | "snapshots"
  | "leases"
  | "netns"
  | "links"
  | "addresses"
  | "rules"
  | "files",
  string[]
>;

/**
 * `hypercore agent` as a process of its own with a containerd of its own, in a network of its own. Dispose stops what
 * it runs and removes every trace, also when it was killed half-way.
 */
export class LiveAgent implements AsyncDisposable {
  readonly stateDir: string;
  readonly dataDir: string;
  readonly namespace = `e2e-${crypto.randomUUID().slice(0, 8)}`;
  readonly name: string;
  /** Further flags of `hypercore agent`; what is put here counts from the next start on. */
  flags: readonly string[];
  /** Folder with another containerd than the PATH's; what is put here counts from the next start on. */
  containerdDir?: string;
  readonly #ownsHost: boolean;
  readonly #engineFlags: readonly string[];
  readonly #isUrgent: boolean;
  #process?: Deno.ChildProcess;

  private constructor(readonly host: TestHost, readonly dir: string, options: LiveAgentOptions) {
    this.name = options.name ?? "n1";
    this.#ownsHost = options.host === undefined;
    this.stateDir = `${dir}/state`;
    this.dataDir = options.dataDir ?? `${dir}/data`;
    this.flags = options.flags ?? [];
    this.containerdDir = options.containerdDir;
    this.#isUrgent = options.isUrgent ?? false;
    this.#engineFlags = options.inspector ? [`--inspect=127.0.0.1:${INSPECTOR_PORT}`] : [];
  }

  /** Makes the place and starts the agent in it; resolves when it is ready. */
  static async start(options: LiveAgentOptions = {}): Promise<LiveAgent> {
    const agent = await LiveAgent.prepare(options);
    try {
      await agent.run();
    } catch (error) {
      await agent[Symbol.asyncDispose]();
      throw error;
    }
    return agent;
  }

  /** Makes the place; {@linkcode run} starts the agent. */
  static async prepare(options: LiveAgentOptions = {}): Promise<LiveAgent> {
    const dir = await Deno.makeTempDir({ prefix: "hc-live-" });
    return new LiveAgent(options.host ?? await TestHost.create(), dir, options);
  }

  /** Of the agent's own log. */
  get logFile(): string {
    return `${this.dir}/agent.log`;
  }

  /** Command line of `hypercore agent` for this place. */
  get agentArgs(): string[] {
    return [
      ...["agent", "--data-dir", this.dataDir, "--state-dir", this.stateDir],
      ...["--containerd-ns", this.namespace, "--node-name", this.name, "--proxy-workers", "1"],
      ...this.flags,
    ];
  }

  /** Starts the agent (again); resolves when it is ready. */
  async run(): Promise<void> {
    // The shell writes the log: a pipe would make the test its reader.
    this.#process = this.host.spawn("/bin/sh", [
      "-c",
      'log=$1; shift; exec "$@" >>"$log" 2>&1',
      "agent",
      this.logFile,
      ...this.#isUrgent ? ["nice", "-n", "-15"] : [],
      Deno.execPath(),
      ...denoArgs(this.agentArgs, this.#engineFlags),
    ], {
      stdin: "null",
      env: this.containerdDir === undefined ? {} : { PATH: `${this.containerdDir}:${Deno.env.get("PATH")}` },
    });
    let ended = false;
    void this.#process.status.then(() => ended = true);
    await until("the agent is ready", async () => {
      if (ended) throw new Error(`the agent ended: ${(await Deno.readTextFile(this.logFile)).slice(-2000)}`);
      return await this.isReady();
    });
  }

  async isReady(): Promise<boolean> {
    return (await this.curl("http://127.0.0.1:8001/readyz")).startsWith("ready");
  }

  /** Runs the agent's command line to its end: what an agent that cannot start says. */
  async runToEnd(): Promise<Outcome> {
    return await this.cli(this.agentArgs);
  }

  /** As if the machine had lost its power: agent, containerd and shims end at once, and with them the containers. */
  async killMachine(): Promise<void> {
    const { containerdPid } = this;
    await this.end("SIGKILL");
    await killAndWait(containerdPid);
    const pids = this.#shims().flatMap(({ pid }) => [pid, ...childrenOf(pid)]);
    for (const pid of pids) await killAndWait(pid);
  }

  /** Ends the agent's process; resolves when it has ended. */
  async end(signal: Deno.Signal): Promise<void> {
    const process = this.#process;
    if (process === undefined) return;
    this.#process = undefined;
    try {
      process.kill(signal);
    } catch (error) {
      // It has ended by itself.
      if (!(error instanceof TypeError)) throw error;
    }
    await process.status;
  }

  /** Resolves when the agent has ended by itself. */
  async ended(): Promise<void> {
    await this.#process?.status;
    this.#process = undefined;
  }

  /** Sends the agent a signal that does not end it. */
  signal(signal: Deno.Signal): void {
    this.#process?.kill(signal);
  }

  /** Pid of the private containerd. */
  get containerdPid(): number {
    const pid = Number(Deno.readTextFileSync(`${this.dataDir}/containerd/containerd.pid`));
    // Zero, of a file that is just being written, would be this process's own group.
    if (!(pid > 1)) throw new Error("the pid of containerd is not written yet");
    return pid;
  }

  /** Pids of a workload's shims: one, or for a moment two. */
  shimPids(id: string): number[] {
    return this.#shims().filter((shim) => shim.id === id).map(({ pid }) => pid);
  }

  #shims(): { pid: number; id: string }[] {
    return [...Deno.readDirSync("/proc")].flatMap(({ name }) => {
      const pid = Number(name);
      const args = pid > 1 ? commandLine(pid) : [];
      if (!args[0]?.includes("containerd-shim") || !args.includes(this.namespace)) return [];
      return [{ pid, id: args[args.indexOf("-id") + 1] }];
    });
  }

  /** Runs the command line on this node. */
  async cli(args: readonly string[], options: CliOptions = {}): Promise<Outcome> {
    const child = this.host.spawn(Deno.execPath(), denoArgs(args), {
      cwd: options.cwd ?? this.dir,
      env: this.cliEnv(options.env),
      stdin: options.stdin === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
    });
    if (options.stdin !== undefined) {
      const writer = child.stdin.getWriter();
      const { stdin } = options;
      const bytes = typeof stdin === "string" ? new TextEncoder().encode(stdin) : stdin;
      // A command that does not read its input to the end is free to do so.
      await writer.write(bytes).then(() => writer.close()).catch(() => {});
    }
    const timer = setTimeout(() => child.kill("SIGKILL"), DEADLINE_MS);
    const { code, stdout, stderr } = await child.output();
    clearTimeout(timer);
    return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
  }

  /** Runs the command line; throws when it fails. */
  async ok(...args: string[]): Promise<string> {
    const { code, out, err } = await this.cli(args);
    if (code !== 0) throw new Error(`hypercore ${args.join(" ")} ended with ${code}: ${err}${out}`);
    return out;
  }

  /** Starts the command line; the caller reads its output. Killed on dispose if it still runs. */
  spawnCli(args: readonly string[], options: Deno.CommandOptions = {}): Deno.ChildProcess {
    return this.host.spawn(Deno.execPath(), denoArgs(args), {
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      cwd: this.dir,
      ...options,
      env: this.cliEnv(options.env),
    });
  }

  /**
   * Runs a shell script on a terminal of 80 × 24; `hypercore` is the command line. Keys are written to the terminal one
   * after the other, each when the screen shows the text it waits for. Gives all that was on the screen.
   */
  async terminal(script: string, keys: readonly { after: RegExp; type: string }[] = []): Promise<Outcome> {
    const words = [Deno.execPath(), ...denoArgs([])].map((word) => `'${word}'`).join(" ");
    const file = `${this.dir}/script-${crypto.randomUUID()}.sh`;
    await Deno.writeTextFile(file, `stty cols 80 rows 24\nhypercore() { ${words} "$@"; }\n${script}\n`);
    const child = this.host.spawn("script", ["-qefc", `/bin/sh ${file}`, "/dev/null"], {
      cwd: this.dir,
      env: { ...this.cliEnv(), TERM: "xterm" },
      stdin: "piped",
      stdout: "piped",
      stderr: "null",
    });
    const writer = child.stdin.getWriter();
    let screen = "";
    let seen = 0;
    const waiting = [...keys];
    const timer = setTimeout(() => child.kill("SIGKILL"), DEADLINE_MS);
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      screen += text;
      for (let key = waiting[0]; key !== undefined; key = waiting[0]) {
        const match = key.after.exec(screen.slice(seen));
        if (match === null) break;
        seen += match.index + match[0].length;
        waiting.shift();
        await writer.write(new TextEncoder().encode(key.type));
      }
    }
    clearTimeout(timer);
    await writer.close().catch(() => {}); // the terminal is gone by then
    const { code } = await child.status;
    if (waiting.length > 0) throw new Error(`the screen never showed ${waiting[0].after}: ${screen}`);
    return { code, out: screen, err: "" };
  }

  /** Loads an image under a name, from an OCI layout. */
  async load(image: TestImage, name: string): Promise<void> {
    const file = `${this.dir}/image-${crypto.randomUUID()}.tar`;
    await Deno.writeFile(file, ociLayoutTar([{ name, image }]));
    await this.ok("image", "load", file);
    await Deno.remove(file);
  }

  /** Spawns and gives the id. */
  async spawn(...args: string[]): Promise<string> {
    return JSON.parse(await this.ok("spawn", "--json", ...args)).id;
  }

  async list(): Promise<Record<string, unknown>[]> {
    return JSON.parse(await this.ok("list", "--json"));
  }

  /** A workload's page through the proxy. */
  page(id: string, port = 8080): Promise<string> {
    return this.curl("-H", `Host: ${id}.example.com`, `http://127.0.0.1:${port}/`);
  }

  async curl(...args: string[]): Promise<string> {
    const request = { program: "curl", args: ["-s", "-m", "20", ...args], timeoutMs: DEADLINE_MS };
    return (await this.host.runCommand(request)).stdout;
  }

  /** containerd, as the agent uses it. */
  containerd(): ContainerdClient {
    return new ContainerdClient({ socket: `${this.dataDir}/containerd.sock`, namespace: this.namespace });
  }

  /** Everything that spawns make and stops remove. */
  async inventory(): Promise<Inventory> {
    await using client = this.containerd();
    const { containers } = await client.containers.list({});
    const { leases } = await client.leases.list({});
    const snapshots: string[] = [];
    for await (
      const { info } of client.snapshots.list({ snapshotter: OVERLAYFS }, { timeoutMs: DEADLINE_MS })
    ) {
      snapshots.push(...info.map(({ name }) => name));
    }
    const run = async (program: string, ...args: string[]) => (await this.host.run(program, ...args)).stdout;
    const links = await run("ip", "-br", "link");
    const rules = await run("nft", "--stateless", "list", "ruleset");
    return {
      workloads: (await this.list()).map(({ id }) => String(id)),
      containers: containers.map(({ id }) => id).sort(),
      shims: this.#shims().map(({ id }) => id).sort(),
      snapshots: snapshots.sort(),
      leases: leases.map(({ id }) => id).sort(),
      netns: (await this.host.guestNetns()).sort(),
      links: [...links.matchAll(/^veth\w+/gm)].map(([name]) => name).sort(),
      addresses: fileNames(`${this.dataDir}/network/ipam`).filter((name) =>
        /\/\d+\.\d+\.\d+\.\d+$/.test(name)
      ),
      // Chains of the CNI plug-ins stay, by their design.
      rules: [...rules.matchAll(/veth[0-9a-f]{8}|192\.168\.127\.\d+(?![\d/])/g)].map(([rule]) => rule).sort(),
      files: [
        ...["logs", "containers", "network/guests"].flatMap((name) => fileNames(`${this.dataDir}/${name}`)),
        ...fileNames(`${this.stateDir}/io`),
      ],
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#stopAll();
    } finally {
      await this.end("SIGKILL");
      const pidFile = `${this.dataDir}/containerd/containerd.pid`;
      const pid = Number(await Deno.readTextFile(pidFile).catch(() => "0")); // there may never have been one
      if (pid > 1 && commandLine(pid).some((word) => word.startsWith(this.dataDir))) await killAndWait(pid);
      if (this.#ownsHost) await this.host[Symbol.asyncDispose]();
      const socket = `${this.dataDir}/containerd.sock`;
      // What is mounted on the data directory is the sweep's, too.
      await sweepContainerd({ dir: this.dir, socket, namespaces: [this.namespace] });
    }
  }

  /** In order while it can be; the sweep sees to the rest. */
  async #stopAll(): Promise<void> {
    if (this.#process === undefined || !await this.isReady()) return;
    const { out, code } = await this.cli(["list", "--quiet"]);
    if (code !== 0) return;
    const ids = out.split("\n").filter((id) => id !== "");
    await Promise.all(ids.map((id) => this.cli(["stop", id, "--grace", "0"])));
    await this.end("SIGTERM");
  }

  /** Environment of client commands: the token is in the data directory. */
  cliEnv(env: Record<string, string> = {}): Record<string, string> {
    return { HYPERCORE_DATA_DIR: this.dataDir, NO_COLOR: "1", ...env };
  }
}

/** Waits until it holds; throws after {@linkcode DEADLINE_MS}. */
export async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const endMs = performance.now() + DEADLINE_MS;
  while (!await holds()) {
    if (performance.now() > endMs) throw new Error(`not within ${DEADLINE_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Waits until a process is gone, or a zombie. */
export async function killAndWait(pid: number): Promise<void> {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  await until(`process ${pid} is gone`, () => commandLine(pid).length === 0);
}

/** Words of a process's command line; none when it has ended. */
export function commandLine(pid: number): string[] {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0").filter((word) => word !== "");
  } catch {
    return []; // it has ended meanwhile
  }
}

/** Pids of a process's children and theirs. */
function childrenOf(pid: number): number[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`);
  } catch {
    return []; // it has ended meanwhile
  }
  return text.split(" ").filter((word) => word !== "").map(Number).flatMap((
    each,
  ) => [each, ...childrenOf(each)]);
}

/** Paths of the files below a folder, relative to it; what is inside containers is left out. */
function fileNames(dir: string, prefix = ""): string[] {
  let entries: Deno.DirEntry[];
  try {
    entries = [...Deno.readDirSync(dir)];
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  return entries.flatMap((entry) => {
    const path = `${prefix}/${entry.name}`;
    if (entry.name === "rootfs") return [];
    return entry.isDirectory ? fileNames(`${dir}/${entry.name}`, path) : [path];
  }).sort();
}

function denoArgs(args: readonly string[], flags: readonly string[] = []): string[] {
  return ["run", ...flags, "-A", "--no-check", "--config", `${ROOT}deno.json`, `${ROOT}main.ts`, ...args];
}
