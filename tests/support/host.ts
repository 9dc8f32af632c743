import { type CommandResult, type RunCommand, runCommand } from "../../runtime/network/command.ts";
import type { WriteSysctl } from "../../runtime/network/sysctl.ts";

const COMMAND_TIMEOUT_MS = 60_000;

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

  private constructor(readonly name: string) {}

  static async create(): Promise<TestHost> {
    const host = new TestHost(`th-${crypto.randomUUID().slice(0, 8)}`);
    await must(
      runCommand({ program: "ip", args: ["netns", "add", host.name], timeoutMs: COMMAND_TIMEOUT_MS }),
    );
    await host.run("ip", "link", "set", "lo", "up");
    return host;
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
    for (const name of [...await this.guestNetns(), this.name]) {
      await runCommand({ program: "ip", args: ["netns", "delete", name], timeoutMs: COMMAND_TIMEOUT_MS });
    }
  }

  #entering(program: string, args: readonly string[]): string[] {
    return [`--net=${this.netnsPath}`, "--", program, ...args];
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
