import assert from "node:assert/strict";
import { installSerf, SerfAgent, until } from "./serf_agent.ts";

const PARTITION_MS = 120_000;
const HEAL_MS = 180_000;
const PORT = 7946;

/** Two network namespaces joined by one cable, which can be cut so that packets vanish. */
class TwoSides implements AsyncDisposable {
  readonly id = crypto.randomUUID().slice(0, 6);
  readonly names = [`hci-${this.id}-a`, `hci-${this.id}-b`];

  async up(): Promise<void> {
    const [a, b] = this.names;
    for (const name of this.names) await run("ip", "netns", "add", name);
    await run(
      "ip",
      "link",
      "add",
      `hi${this.id}a`,
      "netns",
      a,
      "type",
      "veth",
      "peer",
      `hi${this.id}b`,
      "netns",
      b,
    );
    for (const [side, name] of this.names.entries()) {
      const link = `hi${this.id}${"ab"[side]}`;
      await run("ip", "-n", name, "link", "set", "lo", "up");
      await run("ip", "-n", name, "addr", "add", `10.56.0.${side + 1}/30`, "dev", link);
      await run("ip", "-n", name, "link", "set", link, "up");
      for (let i = 1; i <= 10; i++) {
        if (sideOf(i) === side) {
          await run("ip", "-n", name, "addr", "add", `10.55.${side}.${i}/32`, "dev", "lo");
        }
      }
      const [here, there] = [`10.55.${side}.${side === 0 ? 1 : 8}`, `10.56.0.${2 - side}`];
      await run("ip", "-n", name, "route", "add", `10.55.${1 - side}.0/24`, "via", there, "src", here);
    }
  }

  /** Path of a side's namespace, for nsenter. */
  path(side: number): string {
    return `/run/netns/${this.names[side]}`;
  }

  async cut(): Promise<void> {
    for (const side of [0, 1]) {
      const rules = `table ip cut { chain in { type filter hook input priority 0; iifname "hi*" drop; }; }`;
      await run("nsenter", `--net=${this.path(side)}`, "nft", rules);
    }
  }

  async heal(): Promise<void> {
    for (const side of [0, 1]) {
      await run("nsenter", `--net=${this.path(side)}`, "nft", "delete", "table", "ip", "cut");
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.names) await run("ip", "netns", "del", name);
  }
}

/** One of our nodes as a process. */
class OurNode implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;

  constructor(netns: string, args: string[]) {
    const script = new URL("./node.ts", import.meta.url).pathname;
    const config = new URL("../../deno.json", import.meta.url).pathname;
    this.#process = new Deno.Command("nsenter", {
      args: [
        `--net=${netns}`,
        Deno.execPath(),
        "run",
        "-A",
        "--no-check",
        `--config=${config}`,
        script,
        ...args,
      ],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#lines = lines(this.#process.stdout);
    this.#writer = this.#process.stdin.getWriter();
  }

  async ready(): Promise<void> {
    assert.equal((await this.#lines.next()).value, "ready");
  }

  async members(): Promise<Map<string, string>> {
    await this.#writer.write(new TextEncoder().encode("\n"));
    return new Map(Object.entries(JSON.parse((await this.#lines.next()).value)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close();
    await this.#process.status;
    while (!(await this.#lines.next()).done);
  }
}

/** Nodes 8 to 10 are on the other side; the even ones are ours. */
function sideOf(i: number): number {
  return i >= 8 ? 1 : 0;
}

Deno.test("five agents and five of ours: a third is cut off for two minutes, and all find each other again", async () => {
  await installSerf();
  await using stack = new AsyncDisposableStack();
  const sides = stack.use(new TwoSides());
  await sides.up();
  const views: { side: number; alive: () => Promise<string[]> }[] = [];
  for (let i = 1; i <= 10; i++) {
    const side = sideOf(i);
    const host = `10.55.${side}.${i}`;
    const join = i === 1 ? undefined : `10.55.0.1:${PORT}`;
    if (i % 2 === 0) {
      const node = stack.use(new OurNode(sides.path(side), [`n${i}`, host, `${PORT}`, join!]));
      await node.ready();
      views.push({ side, alive: async () => living(await node.members()) });
    } else {
      const args = join ? [`-join=${join}`] : [];
      const agent = stack.use(
        await SerfAgent.start(`n${i}`, args, { host, port: PORT, netns: sides.path(side) }),
      );
      views.push({ side, alive: async () => living(await agent.members()) });
    }
  }
  const all = (count: (side: number) => number) => async () => {
    for (const view of views) if ((await view.alive()).length !== count(view.side)) return false;
    return true;
  };
  await until("all ten see ten", all(() => 10), HEAL_MS);
  await sides.cut();
  const cutMs = performance.now();
  await until("each side sees itself alone", all((side) => side === 0 ? 7 : 3), PARTITION_MS);
  await until("two minutes are over", () => performance.now() - cutMs >= PARTITION_MS, PARTITION_MS + 1_000);
  await sides.heal();
  const healMs = performance.now();
  await until("all ten see ten again", all(() => 10), HEAL_MS);
  console.log(`healed after ${Math.round(performance.now() - healMs)} ms`);
});

function living(members: Map<string, string>): string[] {
  return [...members].filter(([, status]) => status.startsWith("alive")).map(([name]) => name);
}

async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}

async function run(command: string, ...args: string[]): Promise<void> {
  const result = await new Deno.Command(command, { args }).output();
  if (result.success) return;
  throw new Error(`Cannot run "${command} ${args.join(" ")}": ${new TextDecoder().decode(result.stderr)}`);
}
