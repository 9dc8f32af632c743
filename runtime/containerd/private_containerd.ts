import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { RuntimeError } from "../errors.ts";
import { containerdConfig } from "./config.ts";

/** Where a private containerd keeps what it has, and how it is started. */
export interface PrivateContainerdOptions {
  dataDir: string;
  stateDir: string;
  socket: string;
  /** Name or path of the program. */
  binary: string;
  /** Its PATH. */
  path: string;
}

const CONFIG_FLAG = "--config";

/** Time between SIGTERM and SIGKILL when containerd is stopped, in milliseconds. */
const STOP_GRACE_MS = 10_000;

/** How often a process that is not our child is looked at, in milliseconds. */
const LIVENESS_INTERVAL_MS = 200;

/** Of the log, when containerd fails to start. */
const LOG_TAIL_BYTES = 2_000;

/** containerd's log is cut to nothing beyond this many bytes (what was in it is kept once, as `.1`). */
export const MAX_LOG_BYTES = 8 << 20;

/** A running process that may or may not be our child. */
export interface ContainerdProcess {
  readonly pid: number;
  /** Resolves when it has ended. */
  readonly ended: Promise<void>;
  /** Whether it has: then its pid may be another's. */
  readonly hasEnded: boolean;
}

/**
 * The files and the process of a containerd of our own. It runs in a session of its own, so that it lives on when
 * the agent is killed; the pid file tells the next agent which one it is.
 */
export class PrivateContainerd {
  readonly #options: PrivateContainerdOptions;
  readonly #configFile: string;
  readonly #pidFile: string;
  readonly logFile: string;

  constructor(options: PrivateContainerdOptions) {
    const dir = `${options.dataDir}/containerd`;
    this.#options = options;
    this.#configFile = `${dir}/config.toml`;
    this.#pidFile = `${dir}/containerd.pid`;
    this.logFile = `${dir}/containerd.log`;
  }

  /** The one that an earlier agent started, if it still runs. */
  async running(): Promise<ContainerdProcess | undefined> {
    const noted = Number(await readIfThere(this.#pidFile));
    if (await this.#isOurs(noted)) return containerdProcess(noted, this.#endOf(noted));
    // An agent that was killed in between has started one and not written down which.
    for await (const { name } of Deno.readDir("/proc")) {
      const pid = Number(name);
      if (!await this.#isOurs(pid)) continue;
      await this.#note(pid);
      return containerdProcess(pid, this.#endOf(pid));
    }
    return undefined;
  }

  /** Writes the configuration and starts the process. Throws `precondition` when there is no such program. */
  async start(): Promise<ContainerdProcess> {
    const { dataDir, stateDir, socket, binary } = this.#options;
    const dir = `${dataDir}/containerd`;
    const config = containerdConfig({
      root: `${dir}/root`,
      state: `${stateDir}/containerd`,
      socket,
      opt: `${dir}/opt`,
    });
    let log: number;
    try {
      await Deno.mkdir(dir, { recursive: true, mode: 0o700 });
      await Deno.mkdir(stateDir, { recursive: true, mode: 0o711 });
      await Deno.writeTextFile(this.#configFile, config, { mode: 0o600 });
      log = openSync(this.logFile, "a", 0o600);
    } catch (error) {
      throw new RuntimeError("precondition", `Cannot start containerd in "${dir}": ${messageOf(error)}`, {
        cause: error,
      });
    }
    try {
      const started = await this.#spawn(binary, log);
      await this.#note(started.pid);
      return started;
    } finally {
      closeSync(log);
    }
  }

  /** SIGTERM, after a grace period SIGKILL. Shims and containers live on. */
  async stop(running: ContainerdProcess): Promise<void> {
    if (running.hasEnded) return;
    signalProcess(running.pid, "SIGTERM");
    const timer = setTimeout(() => signalProcess(running.pid, "SIGKILL"), STOP_GRACE_MS);
    try {
      await running.ended;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The end of the log: why it did not start. */
  async logTail(): Promise<string> {
    const text = await readIfThere(this.logFile) ?? "";
    return text.slice(-LOG_TAIL_BYTES).trim();
  }

  /** Keeps the log within {@linkcode MAX_LOG_BYTES}: what is there becomes `.1`. Throws Deno's errors. */
  async boundLog(): Promise<void> {
    const size = await Deno.stat(this.logFile).then((info) => info.size, () => 0);
    if (size <= MAX_LOG_BYTES) return;
    // containerd appends, so after the cut it writes from the start again.
    await Deno.copyFile(this.logFile, `${this.logFile}.1`);
    await Deno.truncate(this.logFile);
  }

  #spawn(binary: string, log: number): Promise<ContainerdProcess> {
    return new Promise((resolve, reject) => {
      const child = spawn(binary, [CONFIG_FLAG, this.#configFile, "--log-level", "warn"], {
        detached: true,
        env: { ...process.env, PATH: this.#options.path },
        stdio: ["ignore", log, log],
      });
      const ended = new Promise<void>((done) => child.once("exit", () => done()));
      child.once("error", (error) => {
        const missing = (error as { code?: string }).code === "ENOENT";
        reject(
          new RuntimeError(
            "precondition",
            missing
              ? `Cannot start containerd: there is no program "${binary}" on the PATH; install containerd ` +
                `(Debian: apt-get install containerd runc) or name a running one with --containerd-socket`
              : `Cannot start containerd "${binary}": ${error.message}`,
            { cause: error },
          ),
        );
      });
      child.once("spawn", () => {
        child.unref();
        resolve(containerdProcess(child.pid!, ended));
      });
    });
  }

  async #note(pid: number): Promise<void> {
    await Deno.writeTextFile(this.#pidFile, String(pid), { mode: 0o600 });
  }

  /** Whether the pid is a containerd that was started with our configuration, and no zombie. */
  async #isOurs(pid: number): Promise<boolean> {
    if (!(pid > 1)) return false;
    const args = (await readIfThere(`/proc/${pid}/cmdline`))?.split("\0") ?? [];
    const at = args.indexOf(CONFIG_FLAG);
    return at > 0 && args[at + 1] === this.#configFile;
  }

  async #endOf(pid: number): Promise<void> {
    while (await this.#isOurs(pid)) await delay(LIVENESS_INTERVAL_MS, undefined, { ref: false });
  }
}

function containerdProcess(pid: number, ended: Promise<void>): ContainerdProcess {
  let hasEnded = false;
  return {
    pid,
    ended: ended.then(() => {
      hasEnded = true;
    }),
    get hasEnded() {
      return hasEnded;
    },
  };
}

function signalProcess(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    // A /proc file whose process ends while it is read gives ESRCH, which has no class.
    if (/ESRCH|os error 3\b/.test(messageOf(error))) {
      return undefined;
    }
    throw error;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
