import { TestHost } from "./host.ts";
import type { WireOptions } from "./slow_wire.ts";

const NET = "10.77.0";
const TABLE = "lab";

/**
 * Hosts on one Ethernet, each with a network, network namespaces and shims of its own: `10.77.0.1`, `10.77.0.2`, …
 * Packets between them can be cut, both ways or one way, and let through again; a host's cable can be made a slow one.
 *
 * @example
 * ```ts ignore
 * await using lan = await TestLan.create(3);
 * await lan.cut([0], [1, 2]);
 * await lan.heal();
 * await lan.slow(1, { delayMs: 40, lossPercent: 1 });
 * ```
 */
export class TestLan implements AsyncDisposable {
  readonly #cables = new Map<number, Deno.ChildProcess>();

  private constructor(
    readonly hosts: readonly TestHost[],
    private readonly wire: TestHost,
    private readonly owned: AsyncDisposable,
  ) {}

  static async create(size: number): Promise<TestLan> {
    await using undo = new AsyncDisposableStack();
    const wire = undo.use(await TestHost.create());
    await wire.run("ip", "link", "add", "br0", "type", "bridge");
    await wire.run("ip", "link", "set", "br0", "up");
    const hosts: TestHost[] = [];
    for (let i = 0; i < size; i++) {
      const host = undo.use(await TestHost.create({ ownMounts: true }));
      const port = `port${i}`;
      await wire.run("ip", "link", "add", port, "type", "veth", "peer", "name", "lan0", "netns", host.name);
      await wire.run("ip", "link", "set", port, "master", "br0", "up");
      await host.run("ip", "address", "add", `${TestLan.address(i)}/24`, "dev", "lan0");
      await host.run("ip", "link", "set", "lan0", "up");
      hosts.push(host);
    }
    return new TestLan(hosts, wire, undo.move());
  }

  /** Address of a host by its place. */
  static address(i: number): string {
    return `${NET}.${i + 1}`;
  }

  /** Makes a host's cable delay and lose packets, in both directions alike; again for other figures. */
  async slow(i: number, options: WireOptions): Promise<void> {
    const { wire } = this;
    const [port, far, near] = [`port${i}`, `far${i}`, `near${i}`];
    const before = this.#cables.get(i);
    if (before === undefined) {
      await wire.run("ip", "link", "add", far, "type", "veth", "peer", "name", near);
      await wire.run("ip", "link", "set", port, "nomaster");
      await wire.run("ip", "link", "set", near, "master", "br0", "up");
      await wire.run("ip", "link", "set", far, "up");
    } else {
      before.kill("SIGKILL");
      await before.status;
    }
    const program = new URL("./slow_wire.ts", import.meta.url).pathname;
    const args = ["run", "-A", "--no-config", "--no-check", program, port, far, JSON.stringify(options)];
    // A cable is never busy with something else.
    const cable = wire.spawn("nice", ["-n", "-15", Deno.execPath(), ...args], {
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    });
    this.#cables.set(i, cable);
    const reader = cable.stdout.getReader();
    const { value } = await reader.read();
    await reader.cancel();
    if (value === undefined) throw new Error(`cannot make the cable of host ${i} a slow one`);
  }

  /** Drops what the ones send to the others, and, unless `oneWay`, the other way round. Adds to earlier cuts. */
  async cut(
    ones: readonly number[],
    others: readonly number[],
    options: { oneWay?: boolean } = {},
  ): Promise<void> {
    await Promise.all(others.map((other) => this.#drop(other, ones)));
    if (!options.oneWay) await Promise.all(ones.map((one) => this.#drop(one, others)));
  }

  /** Everybody hears everybody again. */
  async heal(): Promise<void> {
    await Promise.all(this.hosts.map(async (host) => {
      await host.run("nft", "add", "table", "inet", TABLE);
      await host.run("nft", "delete", "table", "inet", TABLE);
    }));
  }

  async #drop(at: number, from: readonly number[]): Promise<void> {
    const host = this.hosts[at];
    await host.run("nft", "add", "table", "inet", TABLE);
    await host.run(
      "nft",
      "add chain inet lab input { type filter hook input priority -300; policy accept; }",
    );
    const addresses = from.map((i) => TestLan.address(i)).join(", ");
    await host.run("nft", `add rule inet ${TABLE} input ip saddr { ${addresses} } drop`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.owned[Symbol.asyncDispose]();
  }
}
