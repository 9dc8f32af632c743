import assert from "node:assert/strict";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { create } from "@bufbuild/protobuf";
import { OptionsSchema } from "../../proto/gen/containerd/runc/v1/options_pb.ts";
import { startContainerd, type TestContainerd } from "../../tests/support/containerd.ts";
import type { ContainerdClient } from "../containerd/client.ts";
import type { ProcessSession } from "../engine.ts";
import { RuntimeError } from "../errors.ts";
import type { Log } from "../log.ts";
import { Xattr } from "../oci/mod.ts";
import { ContainerIo } from "./container_io.ts";
import { resolveContainerUser } from "./container_user.ts";
import type { LogLimits } from "./log_window.ts";
import type { OutputChunk } from "./output_queue.ts";

const RUNC_OPTIONS_URL = "containerd.runc.v1.Options";
const SPEC_URL = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/** Programs of busybox that test containers have. */
const APPLETS = "sh cat echo sleep stty id pwd env seq yes head wc true false kill test touch chmod dd tr"
  .split(" ");

/** Most exec'd processes of a bench. */
export const MAX_TEST_EXECS = 52;

/** A container under test. */
export interface TestContainerOptions {
  args: string[];
  tty?: boolean;
  stdin?: boolean;
  plainFile?: boolean;
}

/** A private containerd and a {@linkcode ContainerIo} on it, for tests of this folder. */
export class IoBench implements AsyncDisposable {
  readonly containerd: TestContainerd;
  readonly client: ContainerdClient;
  readonly warnings: string[] = [];
  io: ContainerIo;
  readonly #limits: LogLimits;
  readonly #xattr = new Xattr();

  private constructor(containerd: TestContainerd, limits: LogLimits) {
    this.containerd = containerd;
    this.client = containerd.client();
    this.#limits = limits;
    this.io = this.#newIo();
  }

  static async start(limits: LogLimits = { maxBytes: 1 << 20, maxFiles: 3 }): Promise<IoBench> {
    const bench = new IoBench(await startContainerd(), limits);
    await bench.io.start();
    return bench;
  }

  /** As when the agent is killed and started again. */
  async replaceIo(adopt: string[]): Promise<void> {
    this.io = this.#newIo();
    await this.io.start();
    await this.io.adopt(adopt);
  }

  get stateDir(): string {
    return `${this.containerd.scratch}/state`;
  }

  /** Creates and starts a container on a root file system of busybox alone; its id. */
  async run(options: TestContainerOptions): Promise<string> {
    const id = `c-${crypto.randomUUID().slice(0, 8)}`;
    const { mounts } = await this.client.snapshots.prepare({
      snapshotter: "overlayfs",
      key: id,
      labels: { "containerd.io/gc.root": "test" },
    });
    // A snapshot without a parent is a plain directory.
    await fillRootfs(mounts[0].source);
    await this.client.containers.create({
      container: {
        id,
        snapshotter: "overlayfs",
        snapshotKey: id,
        runtime: { name: "io.containerd.runc.v2", options: this.#runcOptions() },
        spec: { typeUrl: SPEC_URL, value: json(runtimeSpec(options, `/${this.containerd.namespace}/${id}`)) },
      },
    });
    await this.startTask(id, options);
    return id;
  }

  /** Creates and starts the container's task. */
  async startTask(id: string, options: TestContainerOptions): Promise<void> {
    const { tty = false, stdin = false, plainFile } = options;
    const stdio = await this.io.prepare(id, { tty, stdin, plainFile });
    const { mounts } = await this.client.snapshots.mounts({ snapshotter: "overlayfs", key: id });
    await this.client.tasks.create({
      containerId: id,
      rootfs: mounts,
      ...stdio,
      options: this.#runcOptions(),
    });
    await this.client.tasks.start({ containerId: id });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.io[Symbol.asyncDispose]();
    } finally {
      this.#xattr[Symbol.dispose]();
      await this.containerd[Symbol.asyncDispose]();
    }
  }

  #newIo(): ContainerIo {
    const note = (message: string, fields?: Record<string, unknown>) =>
      void this.warnings.push(`${message} ${JSON.stringify(fields)}`);
    const log: Log = { debug() {}, info() {}, warn: note, error: note };
    return new ContainerIo({
      client: this.client,
      logDir: `${this.containerd.scratch}/logs`,
      stateDir: this.stateDir,
      limits: this.#limits,
      resolveUser: (id, user, signal) =>
        resolveContainerUser(this.client, id, { user, xattr: this.#xattr, signal }),
      log,
      maxExecs: MAX_TEST_EXECS,
      rotationIntervalMs: 50,
    });
  }

  #runcOptions() {
    const { value } = anyPack(OptionsSchema, create(OptionsSchema, { root: this.containerd.runcRoot }));
    return { typeUrl: RUNC_OPTIONS_URL, value };
  }
}

/** What a session printed, and how it ended. */
export interface Result {
  stdout: string;
  stderr: string;
  exitCode: number;
}

/** Everything a session prints, and how it ends. */
export async function finish(session: ProcessSession): Promise<Result> {
  const text = { stdout: "", stderr: "" };
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
  for await (const { stream, data } of session.output) {
    text[stream] += decoders[stream].decode(data, { stream: true });
  }
  return { ...text, exitCode: await session.exitCode };
}

/** Reads a session until what it printed matches. */
export async function until(output: AsyncIterator<OutputChunk>, pattern: RegExp): Promise<string> {
  let seen = "";
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`no ${pattern} in time: ${seen}`)), 60_000);
  using _ = { [Symbol.dispose]: () => clearTimeout(timer) };
  while (!pattern.test(seen)) {
    const next = await Promise.race([output.next(), late.promise]);
    if (next.done) throw new Error(`the output ended before ${pattern}: ${seen}`);
    seen += new TextDecoder().decode(next.value.data);
  }
  return seen;
}

/** All of a stream, as text. */
export async function text(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  return new TextDecoder().decode(await new Response(ReadableStream.from(chunks)).arrayBuffer());
}

/** A check, for `assert.rejects`, of a runtime error's code and message. */
export function isError(code: string, message?: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert(error instanceof RuntimeError, String(error));
    assert.equal(error.code, code, error.message);
    if (message) assert.match(error.message, message);
    return true;
  };
}

function json(value: unknown): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify(value));
}

async function fillRootfs(root: string): Promise<void> {
  for (const name of ["bin", "dev", "etc", "proc", "sys", "tmp"]) {
    await Deno.mkdir(`${root}/${name}`, { recursive: true });
  }
  await Deno.copyFile("/bin/busybox", `${root}/bin/busybox`);
  for (const name of APPLETS) await Deno.symlink("busybox", `${root}/bin/${name}`);
  await Deno.writeTextFile(`${root}/etc/passwd`, "root:x:0:0::/:/bin/sh\napp:x:1234:77::/tmp:/bin/sh\n");
  await Deno.writeTextFile(`${root}/etc/group`, "app:x:77:\nextra:x:88:app\n");
  await Deno.writeTextFile(`${root}/bin/not-executable`, "#!/bin/sh\n", { mode: 0o644 });
}

function runtimeSpec(options: TestContainerOptions, cgroupsPath: string): Record<string, unknown> {
  const capabilities = ["CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_DAC_OVERRIDE"];
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: options.tty ?? false,
      user: { uid: 0, gid: 0 },
      args: options.args,
      env: ["PATH=/bin", "FROM=container"],
      cwd: "/",
      capabilities: { bounding: capabilities, effective: capabilities, permitted: capabilities },
      noNewPrivileges: true,
    },
    root: { path: "rootfs" },
    hostname: "test",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755"] },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
      },
    ],
    linux: {
      cgroupsPath,
      namespaces: ["pid", "ipc", "uts", "mount", "network"].map((type) => ({ type })),
    },
  };
}
