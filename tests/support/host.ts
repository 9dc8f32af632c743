import { type CommandResult, type RunCommand, runCommand } from "../../runtime/network/command.ts";
import type { WriteSysctl } from "../../runtime/network/sysctl.ts";

const COMMAND_TIMEOUT_MS = 60_000;
/** What two agents on one machine would share: names of network namespaces, sockets and state of shims and runc. */
const OWN_MOUNTS = ["/run/netns", "/run/containerd"];

/**
 * A host's network of the test's own: a network namespace with `lo` up and nothing else. Agents, containers, firewall
 * rules and veths of a test live in it, so the machine's own network is never touched; only the network is apart,
 * files and processes are the machine's.
 *
 * @example
 * ```ts ignore
 * await using host = await TestHost.create();
 * await using outside = await TestHost.create();
 * await host.connect(outside, { address: "10.1.0.1", peerAddress: "10.1.0.2" });
 * const { stdout } = await host.run("ip", "-br", "address");
 * const agent = host.spawn("./hypercore", ["agent"]);
 * ```
 */
export class TestHost implements AsyncDisposable {
  readonly #children: Deno.ChildProcess[] = [];
  /** Keeps the mount namespace, where the host has one of its own. */
  #keeper?: Deno.ChildProcess;

  private constructor(readonly name: string) {}

  /**
   * With `ownMounts` the host also has named network namespaces and containerd's runtime files of its own, so that
   * several agents can run a workload of the same id on one machine. They last as long as the host.
   */
  static async create(options: { ownMounts?: boolean } = {}): Promise<TestHost> {
    const host = new TestHost(`th-${crypto.randomUUID().slice(0, 8)}`);
    await must(
      runCommand({ program: "ip", args: ["netns", "add", host.name], timeoutMs: COMMAND_TIMEOUT_MS }),
    );
    try {
      await host.run("ip", "link", "set", "lo", "up");
      if (options.ownMounts) await host.#separateMounts();
    } catch (error) {
      await host[Symbol.asyncDispose]();
      throw error;
    }
    return host;
  }

  async #separateMounts(): Promise<void> {
    const script = OWN_MOUNTS.map((path) => `mkdir -p ${path} && mount -t tmpfs tmpfs ${path}`).join(" && ");
    this.#keeper = new Deno.Command("unshare", {
      args: ["--mount", "--propagation", "slave", "--", "sh", "-c", `${script} && echo ready && exec cat`],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const reader = this.#keeper.stdout.getReader();
    const { value } = await reader.read();
    await reader.cancel();
    if (value === undefined) throw new Error("cannot make a mount namespace");
  }

  get netnsPath(): string {
    return `/run/netns/${this.name}`;
  }

  /** Runs a program in this network; throws when it fails. */
  run(program: string, ...args: string[]): Promise<CommandResult> {
    return must(this.runCommand({ program, args, timeoutMs: COMMAND_TIMEOUT_MS }));
  }

  /** Like the runtime's own `runCommand`, in this network. */
  readonly runCommand: RunCommand = (request) =>
    runCommand({ ...request, program: "nsenter", args: this.#entering(request.program, request.args) });

  /** Like the runtime's own `writeSysctl`, in this network. */
  readonly writeSysctl: WriteSysctl = async (name, value) => {
    await this.run("sysctl", "-qe", "-w", `net/${name}=${value}`);
  };

  /** Starts a program in this network; it is killed on dispose if it still runs. */
  spawn(program: string, args: readonly string[], options: Deno.CommandOptions = {}): Deno.ChildProcess {
    const child = new Deno.Command("nsenter", { ...options, args: this.#entering(program, args) }).spawn();
    this.#children.push(child);
    return child;
  }

  /**
   * A cable to another host: a veth pair with an address at each end, and this host's default route through it
   * (unless `isDefault` is false).
   */
  async connect(
    other: TestHost,
    options: { address: string; peerAddress: string; prefix?: number; isDefault?: boolean },
  ): Promise<{ interface: string; peerInterface: string }> {
    const [near, far] = [0, 1].map(() => `up${crypto.randomUUID().slice(0, 8)}`);
    await this.run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", other.name);
    const prefix = options.prefix ?? 24;
    for (
      const [host, face, address] of [[this, near, options.address], [
        other,
        far,
        options.peerAddress,
      ]] as const
    ) {
      await host.run("ip", "address", "add", `${address}/${prefix}`, "dev", face);
      await host.run("ip", "link", "set", face, "up");
    }
    if (options.isDefault ?? true) {
      await this.run("ip", "route", "add", "default", "via", options.peerAddress);
    }
    return { interface: near, peerInterface: far };
  }

  /** Names of the netns that have a veth into this one: the containers'. */
  async guestNetns(): Promise<string[]> {
    const { stdout } = await this.run("ip", "netns", "list-id");
    return [...stdout.matchAll(/\(iproute2 netns name: (hc-\S+)\)/g)].map(([, name]) => name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#children) {
      kill(child);
      await child.status;
    }
    // Namespaces named in mounts of the host's own go with these.
    const guests = this.#keeper === undefined ? await this.guestNetns() : [];
    if (this.#keeper !== undefined) {
      kill(this.#keeper);
      await this.#keeper.stdin.abort().catch(() => {}); // its reader is gone
      await this.#keeper.status;
    }
    for (const name of [...guests, this.name]) {
      await runCommand({ program: "ip", args: ["netns", "delete", name], timeoutMs: COMMAND_TIMEOUT_MS });
    }
  }

  #entering(program: string, args: readonly string[]): string[] {
    const mounts = this.#keeper === undefined ? [] : [`--mount=/proc/${this.#keeper.pid}/ns/mnt`];
    return [`--net=${this.netnsPath}`, ...mounts, "--", program, ...args];
  }
}

async function must(result: Promise<CommandResult>): Promise<CommandResult> {
  const { code, stdout, stderr } = await result;
  if (code !== 0) throw new Error(`exit code ${code}: ${stderr}${stdout}`);
  return await result;
}

function kill(child: Deno.ChildProcess): void {
  try {
    child.kill("SIGKILL");
  } catch (error) {
    // It has ended already.
    if (!(error instanceof TypeError) && !(error instanceof Deno.errors.NotFound)) throw error;
  }
}
