import { RuntimeError } from "../errors.ts";
import type { RunCommand } from "./command.ts";

/** The version of the CNI specification spoken; the newest every plugin of Debian 12 knows. */
export const CNI_VERSION = "1.0.0";

/** Time one plugin may take, in milliseconds; host-local and iptables wait for locks. */
export const CNI_PLUGIN_TIMEOUT_MS = 60_000;

/**
 * Time that a plugin has to come to its end when its call is canceled, milliseconds. Killed at once, its children would go on, and make
 * behind the back of DEL what it removes; a plugin that hangs must not hold up everything else.
 */
export const CNI_CANCELED_MS = 5_000;

/** What a plugin is asked to do (CNI specification 1.0.0, section 2). */
export type CniVerb = "ADD" | "DEL" | "CHECK";

/** A plugin's own configuration, without `cniVersion`, `name` and `prevResult`. */
export interface CniPlugin {
  type: string;
  [key: string]: unknown;
}

/** The result of ADD (CNI specification 1.0.0, section 5). */
export interface CniResult {
  cniVersion: string;
  interfaces?: { name: string; mac?: string; sandbox?: string }[];
  ips?: { address: string; gateway?: string; interface?: number }[];
  routes?: { dst: string; gw?: string }[];
  dns?: Record<string, unknown>;
}

/** One call of one plugin. */
export interface CniCall {
  verb: CniVerb;
  /** Name of the network; host-local keeps its leases under it. */
  network: string;
  plugin: CniPlugin;
  containerId: string;
  /** Empty on DEL when the netns is gone. */
  netnsPath: string;
  ifName: string;
  prevResult?: CniResult;
  /** Keeps the call from being made; one that has begun goes on for {@linkcode CNI_CANCELED_MS} at most. */
  signal?: AbortSignal;
}

/** Runs CNI plugins: configuration on stdin, result or error on stdout. Nothing is written to disk. */
export class CniDriver {
  constructor(
    readonly options: { cniPath: readonly string[]; run: RunCommand; canceledMs?: number },
  ) {}

  /** Path of a plugin. Throws `precondition` that names the plugin and where it was looked for. */
  async find(type: string): Promise<string> {
    for (const dir of this.options.cniPath) {
      const path = `${dir}/${type}`;
      try {
        const info = await Deno.stat(path);
        if (info.isFile && ((info.mode ?? 0) & 0o111) !== 0) return path;
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound) && !(error instanceof Deno.errors.NotADirectory)) {
          throw error;
        }
      }
    }
    throw new RuntimeError(
      "precondition",
      `Cannot find CNI plugin "${type}": it is not in ${
        this.options.cniPath.join(", ") || "an empty CNI path"
      }`,
    );
  }

  /** Calls a plugin; the result is there for ADD only. Throws {@linkcode RuntimeError}. */
  async call(call: CniCall): Promise<CniResult | undefined> {
    const { verb, plugin, containerId } = call;
    const path = await this.find(plugin.type);
    if (call.signal?.aborted) {
      throw new RuntimeError("canceled", `Cannot ${verb} network of "${containerId}": canceled`, {
        cause: call.signal.reason,
      });
    }
    const config = { cniVersion: CNI_VERSION, name: call.network, ...plugin, prevResult: call.prevResult };
    using late = new LateSignal(call.signal, this.options.canceledMs ?? CNI_CANCELED_MS);
    const { code, stdout, stderr } = await this.options.run({
      program: path,
      args: [],
      env: {
        CNI_COMMAND: verb,
        CNI_CONTAINERID: containerId,
        CNI_NETNS: call.netnsPath,
        CNI_IFNAME: call.ifName,
        CNI_PATH: this.options.cniPath.join(":"),
      },
      stdin: JSON.stringify(config),
      timeoutMs: CNI_PLUGIN_TIMEOUT_MS,
      signal: late.signal,
    });
    if (code !== 0) throw pluginError(call, stdout.trim() || stderr.trim() || `exit code ${code}`);
    return verb === "ADD" ? parseResult(call, stdout) : undefined;
  }
}

function pluginError(call: CniCall, output: string): RuntimeError {
  let reason = output.slice(0, MAX_REASON_LENGTH);
  try {
    const { msg, details } = JSON.parse(output);
    if (typeof msg === "string") reason = details ? `${msg}: ${details}` : msg;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  const isFull = /no IP addresses available/.test(reason);
  return new RuntimeError(
    isFull ? "exhausted" : "failed",
    `Cannot ${call.verb} network of "${call.containerId}": CNI plugin ${call.plugin.type}: ${reason}`,
  );
}

const MAX_REASON_LENGTH = 2000;

function parseResult(call: CniCall, stdout: string): CniResult {
  try {
    const result = JSON.parse(stdout);
    if (typeof result === "object" && result !== null && !Array.isArray(result)) return result as CniResult;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw pluginError(call, `its result is not a JSON object: ${stdout}`);
}

/** A signal that aborts a while after another one, until it is disposed. */
class LateSignal implements Disposable {
  readonly #controller = new AbortController();
  readonly #source: AbortSignal | undefined;
  readonly #delayMs: number;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(source: AbortSignal | undefined, delayMs: number) {
    this.#source = source;
    this.#delayMs = delayMs;
    source?.addEventListener("abort", this.#arm, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#source?.removeEventListener("abort", this.#arm);
  }

  readonly #arm = () => {
    this.#timer = setTimeout(() => this.#controller.abort(this.#source?.reason), this.#delayMs);
  };
}
