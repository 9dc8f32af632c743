import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { TestHost } from "../support/host.ts";
import { until } from "./live_agent.ts";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");

interface Result {
  code: number;
  out: string;
  err: string;
}

/** A demo in a network of its own, with files, names and node addresses of its own. */
class Demo implements AsyncDisposable {
  readonly id = Array.from(crypto.getRandomValues(new Uint8Array(5)), (byte) => (byte % 36).toString(36))
    .join("");
  readonly dir = `/var/lib/hypercore-demo-${this.id}`;

  private constructor(readonly host: TestHost) {}

  static async create(): Promise<Demo> {
    return new Demo(await TestHost.create());
  }

  make(target: string): Promise<Result> {
    return this.command("make", ["--no-print-directory", "-C", ROOT, target]);
  }

  /** The command line on a node of the demo. */
  hc(node: number, ...args: string[]): Promise<Result> {
    return this.command(`${this.dir}/hc`, [String(node), ...args]);
  }

  async command(program: string, args: string[]): Promise<Result> {
    const output = await new Deno.Command("nsenter", {
      args: [`--net=${this.host.netnsPath}`, program, ...args],
      stdin: "null",
      env: { HYPERCORE_DEMO_DIR: this.dir, HYPERCORE_DEMO_ID: this.id },
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code: output.code, out: text(output.stdout), err: text(output.stderr) };
  }

  /** What the demo could leave behind. */
  async traces(): Promise<Record<string, string>> {
    const out = async (program: string, ...args: string[]) => (await this.command(program, args)).out.trim();
    const files = `${this.dir} /sys/fs/cgroup/*/hc${this.id}-* /run/netns/hc${this.id}-*`;
    return {
      files: await out("sh", "-c", `ls -d ${files} 2>/dev/null`),
      processes: this.#processes().join("\n"),
      mounts: await out("sh", "-c", `grep -F ${this.dir} /proc/self/mountinfo`),
      links: await out("ip", "-br", "link"),
      tables: await out("nft", "list", "tables"),
      forwarding: await out("cat", "/proc/sys/net/ipv4/ip_forward"),
    };
  }

  /** Command lines that name the demo's directory or a containerd namespace of it. */
  #processes(): string[] {
    return [...Deno.readDirSync("/proc")].filter(({ name }) => /^[0-9]+$/.test(name)).flatMap(({ name }) => {
      try {
        const words = Deno.readTextFileSync(`/proc/${name}/cmdline`).replaceAll("\0", " ");
        return words.includes(this.dir) || words.includes(`hc${this.id}-n`) ? [words] : [];
      } catch {
        return []; // it has ended meanwhile
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.make("demo-stop");
    await this.host[Symbol.asyncDispose]();
  }
}

Deno.test("make demo twice, the command line on it, and demo-stop that leaves nothing", async (t) => {
  await using demo = await Demo.create();
  const before = await demo.traces();

  await t.step(
    "make demo gets the page through three nodes, loses one of them and gets it back",
    async () => {
      const { code, out, err } = await demo.make("demo");
      assert.equal(code, 0, out + err);
      assert.equal(out.match(/^Hello from a container that Hypercore runs/gm)?.length, 6, out);
      assert.match(out, /it runs elsewhere, under the same id and URL/);
      // What a self-extracting build unpacks is the demo's, too.
      const executable = await Deno.open(join(ROOT, "hypercore"));
      const head = new Uint8Array(2);
      await executable.read(head);
      executable.close();
      if (new TextDecoder().decode(head) === "#!") await Deno.stat(`${demo.dir}/cache`);
    },
  );
  await t.step("make demo works again on top of itself", async () => {
    const { code, out, err } = await demo.make("demo");
    assert.equal(code, 0, out + err);
    for (const node of [1, 2, 3]) {
      assert.equal(JSON.parse((await demo.hc(node, "list", "--json")).out).length, 1);
    }
  });
  await t.step("inspect shows the workload, by name, on any node", async () => {
    for (const node of [1, 2, 3]) {
      const workload = JSON.parse((await demo.hc(node, "inspect", "demo")).out);
      assert.equal(workload.status, "running");
      assert.match(workload.address, /^192\.168\.127\./);
    }
  });
  await t.step("exec gives output and exit code of the command, from any node", async () => {
    for (const node of [1, 2, 3]) {
      const script = "echo out; echo err >&2; exit 7";
      const echo = await demo.hc(node, "exec", "demo", "/bin/busybox", "sh", "-c", script);
      assert.deepEqual(echo, { code: 7, out: "out\n", err: "err\n" });
      assert.equal((await demo.hc(node, "exec", "demo", "/nonexistent")).code, 127);
      assert.equal((await demo.hc(node, "exec", "demo", "/www")).code, 126);
    }
    assert.equal((await demo.hc(1, "exec", "nobody", "true")).code, 125);
  });
  await t.step("an image that nobody has is one line and changes nothing", async () => {
    const taken = await demo.hc(1, "spawn", "--image-ref", "nope.invalid/x:1");
    assert.equal(taken.code, 1);
    assert.equal(taken.err.trim().split("\n").length, 1);
    assert.equal(JSON.parse((await demo.hc(2, "list", "--json")).out).length, 1);
  });
  await t.step("stop removes it, and a second stop says that it is not there", async () => {
    assert.equal((await demo.hc(2, "stop", "demo")).code, 0);
    await until("node 2 has heard of it", async () => {
      return JSON.parse((await demo.hc(2, "list", "--json")).out).length === 0;
    });
    assert.equal((await demo.hc(2, "stop", "demo")).code, 1);
  });
  await t.step("make demo-stop leaves nothing behind, also the second time", async () => {
    for (let round = 0; round < 2; round++) {
      const { code, out, err } = await demo.make("demo-stop");
      assert.equal(code, 0, out + err);
      assert.deepEqual(await demo.traces(), before);
    }
  });
});
