import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { TestHost } from "../support/host.ts";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");

interface Result {
  code: number;
  out: string;
  err: string;
}

/** A demo in a network of its own, with directories and a containerd namespace of its own. */
class Demo implements AsyncDisposable {
  readonly id = crypto.randomUUID().slice(0, 8);
  readonly dir = `/var/lib/hypercore-demo-${this.id}`;
  readonly state = `/run/hypercore-demo-${this.id}`;
  readonly namespace = `demo-${this.id}`;

  private constructor(readonly host: TestHost) {}

  static async create(): Promise<Demo> {
    return new Demo(await TestHost.create());
  }

  make(target: string): Promise<Result> {
    return this.command("make", ["--no-print-directory", "-C", ROOT, target]);
  }

  hypercore(...args: string[]): Promise<Result> {
    return this.command(join(ROOT, "hypercore"), args);
  }

  async command(program: string, args: string[]): Promise<Result> {
    const output = await new Deno.Command("nsenter", {
      args: [`--net=${this.host.netnsPath}`, program, ...args],
      stdin: "null",
      env: {
        HYPERCORE_DEMO_DIR: this.dir,
        HYPERCORE_DEMO_STATE: this.state,
        HYPERCORE_DEMO_NAMESPACE: this.namespace,
        HYPERCORE_API: "127.0.0.1:18081",
        HYPERCORE_DATA_DIR: this.dir,
      },
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code: output.code, out: text(output.stdout), err: text(output.stderr) };
  }

  /** What the demo could leave behind. */
  async traces(): Promise<Record<string, string>> {
    const out = async (program: string, ...args: string[]) => (await this.command(program, args)).out.trim();
    return {
      files: await out(
        "sh",
        "-c",
        `ls -d ${this.dir} ${this.state} /sys/fs/cgroup/*/${this.namespace} 2>/dev/null`,
      ),
      processes: this.#processes().join("\n"),
      mounts: await out("sh", "-c", `grep -F -e ${this.dir} -e ${this.state} /proc/self/mountinfo`),
      links: await out("ip", "-br", "link"),
      tables: await out("nft", "list", "tables"),
      forwarding: await out("cat", "/proc/sys/net/ipv4/ip_forward"),
    };
  }

  /** Command lines that name the demo's directory or containerd namespace. */
  #processes(): string[] {
    return [...Deno.readDirSync("/proc")].filter(({ name }) => /^[0-9]+$/.test(name)).flatMap(({ name }) => {
      try {
        const words = Deno.readTextFileSync(`/proc/${name}/cmdline`).replaceAll("\0", " ");
        return words.includes(this.dir) || words.includes(this.namespace) ? [words] : [];
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

  await t.step("make demo gets the page", async () => {
    const { code, out, err } = await demo.make("demo");
    assert.equal(code, 0, out + err);
    assert.match(out, /Hello from a container that Hypercore runs/);
  });
  await t.step("make demo works again on top of itself", async () => {
    const { code, out, err } = await demo.make("demo");
    assert.equal(code, 0, out + err);
    assert.equal(JSON.parse((await demo.hypercore("list", "--json")).out).length, 1);
  });
  await t.step("inspect shows the workload, by name", async () => {
    const workload = JSON.parse((await demo.hypercore("inspect", "demo")).out);
    assert.equal(workload.status, "running");
    assert.match(workload.address, /^192\.168\.126\./);
  });
  await t.step("exec gives output and exit code of the command", async () => {
    const echo = await demo.hypercore(
      "exec",
      "demo",
      "/bin/busybox",
      "sh",
      "-c",
      "echo out; echo err >&2; exit 7",
    );
    assert.deepEqual(echo, { code: 7, out: "out\n", err: "err\n" });
    assert.equal((await demo.hypercore("exec", "demo", "/nonexistent")).code, 127);
    assert.equal((await demo.hypercore("exec", "demo", "/www")).code, 126);
    assert.equal((await demo.hypercore("exec", "nobody", "true")).code, 125);
  });
  await t.step("a taken host port and an unknown image are one line and change nothing", async () => {
    const taken = await demo.hypercore("spawn", "--image-ref", "nope.invalid/x:1", "--ports", "18081:80");
    assert.equal(taken.code, 1);
    assert.equal(taken.err.trim().split("\n").length, 1);
    assert.equal(JSON.parse((await demo.hypercore("list", "--json")).out).length, 1);
  });
  await t.step("stop removes it, and a second stop says that it is not there", async () => {
    assert.equal((await demo.hypercore("stop", "demo")).code, 0);
    assert.deepEqual(JSON.parse((await demo.hypercore("list", "--json")).out), []);
    assert.equal((await demo.hypercore("stop", "demo")).code, 1);
  });
  await t.step("make demo-stop leaves nothing behind, also the second time", async () => {
    await demo.make("demo");
    for (let round = 0; round < 2; round++) {
      const { code, out, err } = await demo.make("demo-stop");
      assert.equal(code, 0, out + err);
      assert.deepEqual(await demo.traces(), before);
    }
  });
});
