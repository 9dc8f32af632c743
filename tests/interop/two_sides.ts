/** Two network namespaces joined by one cable, which can be cut so that packets vanish. */
export class TwoSides implements AsyncDisposable {
  readonly #id = crypto.randomUUID().slice(0, 6);
  readonly names = [`hci-${this.#id}-a`, `hci-${this.#id}-b`];
  readonly #made: string[] = [];

  /** Makes both; `hosts` are the addresses of each side, IPv4 `10.55.<side>.<n>` and IPv6 `fd55:<side>::<n>`. */
  static async make(hosts: readonly (readonly number[])[]): Promise<TwoSides> {
    const sides = new TwoSides();
    try {
      await sides.#make(hosts);
    } catch (error) {
      await sides[Symbol.asyncDispose]();
      throw error;
    }
    return sides;
  }

  async #make(hosts: readonly (readonly number[])[]): Promise<void> {
    const [a, b] = this.names;
    for (const name of this.names) {
      await run("ip", "netns", "add", name);
      this.#made.push(name);
    }
    const [here, there] = ["a", "b"].map((end) => `hi${this.#id}${end}`);
    await run("ip", "link", "add", here, "netns", a, "type", "veth", "peer", there, "netns", b);
    for (const [side, name] of this.names.entries()) {
      const link = side === 0 ? here : there;
      const ip = (...args: string[]) => run("ip", "-n", name, ...args);
      await ip("link", "set", "lo", "up");
      await ip("addr", "add", `10.56.0.${side + 1}/30`, "dev", link);
      await ip("addr", "add", `fd56::${side + 1}/64`, "dev", link, "nodad");
      await ip("link", "set", link, "up");
      for (const host of hosts[side]) {
        await ip("addr", "add", `10.55.${side}.${host}/32`, "dev", "lo");
        await ip("addr", "add", `fd55:${side}::${host}/128`, "dev", "lo", "nodad");
      }
      const source = hosts[side][0];
      const other = 1 - side;
      await ip(
        "route",
        "add",
        `10.55.${other}.0/24`,
        "via",
        `10.56.0.${other + 1}`,
        "src",
        `10.55.${side}.${source}`,
      );
      await ip(
        "-6",
        "route",
        "add",
        `fd55:${other}::/64`,
        "via",
        `fd56::${other + 1}`,
        "src",
        `fd55:${side}::${source}`,
      );
    }
  }

  /** Path of a side's namespace, for nsenter. */
  path(side: number): string {
    return `/run/netns/${this.names[side]}`;
  }

  /** Packets vanish from now on. */
  async cut(): Promise<void> {
    for (const side of [0, 1]) {
      const rules = `table inet cut { chain in { type filter hook input priority 0; iifname "hi*" drop; }; }`;
      await run("nsenter", `--net=${this.path(side)}`, "nft", rules);
    }
  }

  /** Packets arrive again. */
  async heal(): Promise<void> {
    for (const side of [0, 1]) {
      await run("nsenter", `--net=${this.path(side)}`, "nft", "delete", "table", "inet", "cut");
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.#made.splice(0)) await run("ip", "netns", "del", name);
  }
}

async function run(command: string, ...args: string[]): Promise<void> {
  const result = await new Deno.Command(command, { args }).output();
  if (result.success) return;
  throw new Error(`Cannot run "${command} ${args.join(" ")}": ${new TextDecoder().decode(result.stderr)}`);
}
