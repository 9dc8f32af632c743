import { setTimeout as delay } from "node:timers/promises";
import { RuntimeError } from "../errors.ts";
import type { Log } from "../log.ts";
import { ContainerdClient } from "./client.ts";
import { type ContainerdProcess, PrivateContainerd } from "./private_containerd.ts";
import { probe, waitUntilReady } from "./ready.ts";

/** What {@linkcode ContainerdSupervisor} is given. */
export interface ContainerdSupervisorOptions {
  /** The containerd to use if one answers here. */
  socket: string;
  namespace: string;
  /** A private containerd keeps images, snapshots, records and its socket here. */
  dataDir: string;
  /** … and what is of this boot here. */
  stateDir: string;
  log: Log;
  /** The program; `containerd` on the PATH by default. */
  binary?: string;
  /** PATH of the private containerd, in which it looks for shims and runtimes; this process's own by default. */
  path?: string;
  /** How long a start may take, in milliseconds; {@linkcode START_TIMEOUT_MS} by default. */
  startTimeoutMs?: number;
}

/** The containerd in use. */
export interface ContainerdInfo {
  socket: string;
  /** Started, or taken over, by this program. */
  isPrivate: boolean;
  version: string;
  /** `overlayfs`, or `native` where the kernel or the file system can't do that. */
  snapshotter: string;
}

/** How long a containerd may take to answer after it was started, in milliseconds. */
export const START_TIMEOUT_MS = 30_000;

/** Oldest release this program works with. */
export const MIN_VERSION = [1, 6] as const;

/** Pauses before a dead containerd is started again: the first, doubling to the last, in milliseconds. */
const RESTART_MS = { first: 50, last: 30_000 };

/** A containerd that ran this long begins with the first pause again. */
const STEADY_MS = 60_000;

/** How often the size of containerd's log is looked at, in milliseconds. */
const LOG_CHECK_MS = 60_000;

const SNAPSHOTTERS = ["overlayfs", "native"];

/**
 * Sees to it that there is a containerd: the one at the given socket if it answers, else a private one, which it
 * starts again whenever it dies. A private one that an earlier agent left is taken over. Containers never depend on
 * it: they run on while containerd, or the agent, is down.
 */
export class ContainerdSupervisor implements AsyncDisposable {
  readonly #options: ContainerdSupervisorOptions;
  readonly #stopped = new AbortController();
  readonly #private: PrivateContainerd;
  readonly #privateSocket: string;
  #process?: ContainerdProcess;
  #supervising?: Promise<void>;
  #info?: ContainerdInfo;
  #restarts = 0;

  constructor(options: ContainerdSupervisorOptions) {
    this.#options = options;
    // A socket inside the data dir is where the private one belongs; any other may be somebody else's.
    this.#privateSocket = options.socket.startsWith(`${options.dataDir}/`)
      ? options.socket
      : `${options.dataDir}/containerd.sock`;
    this.#private = new PrivateContainerd({
      dataDir: options.dataDir,
      stateDir: options.stateDir,
      socket: this.#privateSocket,
      binary: options.binary ?? "containerd",
      path: options.path ?? Deno.env.get("PATH") ?? "",
    });
  }

  /** How often the private containerd had to be started again. */
  get restarts(): number {
    return this.#restarts;
  }

  /** The containerd in use. Throws an Error before {@linkcode start}. */
  get info(): ContainerdInfo {
    if (this.#info === undefined) throw new Error("ContainerdSupervisor is not started");
    return this.#info;
  }

  /** Finds or starts containerd. Throws `precondition` when there is none to start, or one that is too old. */
  async start(signal?: AbortSignal): Promise<ContainerdInfo> {
    const scope = AbortSignal.any([this.#stopped.signal, ...(signal ? [signal] : [])]);
    const adopted = await this.#private.running();
    if (adopted === undefined && await this.#answers(this.#options.socket, scope)) {
      return this.#info = await this.#inspect(this.#options.socket, { isPrivate: false, signal: scope });
    }
    this.#process = adopted ?? await this.#private.start();
    try {
      await this.#waitUntilReady(this.#process, scope);
      this.#info = await this.#inspect(this.#privateSocket, { isPrivate: true, signal: scope });
    } catch (error) {
      await this.#private.stop(this.#process);
      throw error;
    }
    this.#supervising = this.#supervise(this.#process);
    return this.#info;
  }

  /** Stops a private containerd. Its containers run on; the next agent's containerd finds them. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort();
    await this.#supervising;
    if (this.#process !== undefined) await this.#private.stop(this.#process);
  }

  /** Starts the private containerd again whenever it ends, and keeps its log small, until disposed. */
  async #supervise(first: ContainerdProcess): Promise<void> {
    const { log } = this.#options;
    const bounding = setInterval(() => {
      this.#private.boundLog().catch((error) =>
        log.warn("cannot cut containerd's log", { error: String(error) })
      );
    }, LOG_CHECK_MS);
    const { signal } = this.#stopped;
    const stopped = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
    try {
      let process: ContainerdProcess | undefined = first;
      let startedMs = performance.now();
      let pauseMs: number = RESTART_MS.first;
      for (;;) {
        await Promise.race([process?.ended, stopped]);
        if (signal.aborted) return;
        if (performance.now() - startedMs > STEADY_MS) pauseMs = RESTART_MS.first;
        log.warn("containerd ended, starting it again", { pid: process?.pid, pauseMs });
        await delay(pauseMs, undefined, { signal }).catch(() => {});
        if (signal.aborted) return;
        pauseMs = Math.min(pauseMs * 2, RESTART_MS.last);
        startedMs = performance.now();
        this.#restarts++;
        process = await this.#restart();
      }
    } finally {
      clearInterval(bounding);
    }
  }

  async #restart(): Promise<ContainerdProcess | undefined> {
    try {
      this.#process = await this.#private.start();
      await this.#waitUntilReady(this.#process, this.#stopped.signal);
      return this.#process;
    } catch (error) {
      if (!this.#stopped.signal.aborted) {
        this.#options.log.error("cannot start containerd again", {
          error: error instanceof Error ? error.message : error,
        });
        if (this.#process !== undefined) await this.#private.stop(this.#process);
      }
      return undefined;
    }
  }

  /** Waits for the first answer; a process that ends before gives an error with the end of its log. */
  async #waitUntilReady(process: ContainerdProcess, signal: AbortSignal): Promise<void> {
    await using client = new ContainerdClient({
      socket: this.#privateSocket,
      namespace: this.#options.namespace,
    });
    const dead = new AbortController();
    let isWaiting = true;
    void process.ended.then(() => isWaiting && dead.abort());
    try {
      await waitUntilReady(client, {
        timeoutMs: this.#options.startTimeoutMs ?? START_TIMEOUT_MS,
        signal: AbortSignal.any([signal, dead.signal]),
      });
    } catch (error) {
      if (signal.aborted) {
        throw new RuntimeError("canceled", "Cannot start containerd: canceled", { cause: signal.reason });
      }
      const reason = dead.signal.aborted ? "it ended" : "it does not answer";
      throw new RuntimeError(
        "failed",
        `Cannot start containerd: ${reason}; ${this.#private.logFile} ends with: ${await this.#private
          .logTail()}`,
        { cause: error },
      );
    } finally {
      isWaiting = false;
    }
  }

  async #answers(socket: string, signal: AbortSignal): Promise<boolean> {
    await using client = new ContainerdClient({ socket, namespace: this.#options.namespace });
    return await probe(client, signal) !== undefined;
  }

  /** Version and snapshotter of the containerd there. Throws `precondition` for one that can't be used. */
  async #inspect(
    socket: string,
    options: { isPrivate: boolean; signal: AbortSignal },
  ): Promise<ContainerdInfo> {
    const { isPrivate, signal } = options;
    await using client = new ContainerdClient({ socket, namespace: this.#options.namespace });
    const { version } = await client.version.version({}, { signal });
    const { plugins } = await client.introspection.plugins({}, { signal });
    const refuse = (reason: string) =>
      new RuntimeError("precondition", `Cannot use containerd ${version} at "${socket}": ${reason}`);
    if (!isSupported(version)) throw refuse(`${MIN_VERSION.join(".")} or newer is needed`);
    const loaded = new Set(plugins.filter((p) => p.initErr === undefined).map((p) => `${p.type}/${p.id}`));
    if (!loaded.has("io.containerd.runtime.v2/task")) throw refuse("it has no runtime plug-in");
    const snapshotter = SNAPSHOTTERS.find((name) => loaded.has(`io.containerd.snapshotter.v1/${name}`));
    if (snapshotter === undefined) throw refuse(`it has none of the snapshotters ${SNAPSHOTTERS.join(", ")}`);
    if (snapshotter !== SNAPSHOTTERS[0]) {
      this.#options.log.warn("overlayfs can't be used: each container gets a full copy of its image", {
        snapshotter,
      });
    }
    return { socket, isPrivate, version, snapshotter };
  }
}

/** Whether a release is new enough; one whose version says nothing is taken on trust. */
export function isSupported(version: string): boolean {
  const parts = /^v?(\d+)\.(\d+)/.exec(version);
  if (parts === null) return true;
  const [major, minor] = [Number(parts[1]), Number(parts[2])];
  return major > MIN_VERSION[0] || (major === MIN_VERSION[0] && minor >= MIN_VERSION[1]);
}
