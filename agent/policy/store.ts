import { RuntimeError } from "../../runtime/errors.ts";
import type { Log } from "../../runtime/log.ts";
import { MAX_CACHED_POLICIES, MAX_POLICY_BYTES } from "./limits.ts";
import type { PolicyObservation } from "./observation.ts";
import type { ParsedPolicy, PolicyParser } from "./parse.ts";
import { PolicyError } from "./policy_error.ts";

/** How often the cluster's policy file is looked at, milliseconds. */
export const POLICY_POLL_MS = 1_000;

/** What a {@linkcode PolicyStore} works with. */
export interface PolicyStoreOptions {
  /** The cluster's policy; absent means there is none. */
  clusterPolicyFile?: string;
  /** Folder with the policies that spawns may name: `NAME.json`. */
  policyDir: string;
  log: Log;
  /** Milliseconds since the epoch. */
  nowMs: () => number;
  /** Calls back once; returns what cancels it. */
  setTimer: (callback: () => void, delayMs: number) => () => void;
  observe?: (observation: PolicyObservation) => void;
}

/** The cluster's policy as it is in force. */
export interface LoadedPolicy extends ParsedPolicy {
  /** The file it was read from. */
  source: string;
  loadedAtMs: number;
}

/**
 * The policies of this node: the cluster's, read from its file again whenever that changes, and those that spawns name.
 * A file that has become bad, or has gone, leaves the policy in force as it is and is told in the log and by a metric.
 */
export class PolicyStore implements AsyncDisposable {
  readonly #options: PolicyStoreOptions;
  readonly #listeners = new Set<() => void>();
  readonly #named = new Map<string, { stamp: string; parsed: ParsedPolicy }>();
  #parser?: Promise<PolicyParser>;
  #current?: LoadedPolicy;
  #reloadError = "";
  /** Of the file at the newest reading, good or bad. */
  #stamp = "";
  #cancelTimer?: () => void;
  #isClosed = false;
  #reading: Promise<void> = Promise.resolve();

  constructor(options: PolicyStoreOptions) {
    this.#options = options;
  }

  /** Reads the cluster's policy and begins to watch its file. Throws {@linkcode PolicyError} when it is bad now. */
  async start(): Promise<void> {
    const { clusterPolicyFile: file, log } = this.#options;
    if (file === undefined) return;
    this.#stamp = await stampOf(file);
    this.#current = await this.#read(file);
    const { policy: { name, mode, id }, notes } = this.#current;
    log.info("policy in force", { policy: name, mode, id, file });
    for (const note of notes) log.warn("the policy may be meant otherwise", { file, note });
    this.#watch();
  }

  /** The cluster's policy; `undefined` when there is none. */
  get current(): LoadedPolicy | undefined {
    return this.#current;
  }

  /** Why the file as it is now is not in force; empty when it is. */
  get reloadError(): string {
    return this.#reloadError;
  }

  /** Calls back after the policy in force has changed, until the returned function is called. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Reads the cluster's policy again, changed or not; resolves whether the file is in force now. */
  async reload(): Promise<boolean> {
    await this.#inTurn(() => this.#reload());
    return this.#reloadError === "";
  }

  /** Reads a policy that came with a request. Throws {@linkcode PolicyError}. */
  async parse(text: string): Promise<ParsedPolicy> {
    return (await this.#loadParser()).parse(text, "of the request");
  }

  /** The policy of this name in the policy folder. Throws `not-found`, or {@linkcode PolicyError}. */
  async named(name: string): Promise<ParsedPolicy> {
    // A name is checked where it enters; here it becomes a path.
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/.test(name) || name.includes("..")) {
      throw new RuntimeError(
        "invalid",
        `Cannot use policy "${name.slice(0, 100)}": it is not a policy's name`,
      );
    }
    const file = `${this.#options.policyDir}/${name}.json`;
    const stamp = await stampOf(file);
    if (stamp === "") {
      throw new RuntimeError("not-found", `Cannot use policy "${name}": this node has no file "${file}"`);
    }
    const known = this.#named.get(name);
    if (known?.stamp === stamp) return known.parsed;
    const parsed = await this.#read(file);
    if (this.#named.size >= MAX_CACHED_POLICIES) this.#named.clear();
    this.#named.set(name, { stamp, parsed });
    return parsed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#cancelTimer?.();
    await this.#reading;
  }

  #watch(): void {
    if (this.#isClosed) return;
    this.#cancelTimer = this.#options.setTimer(() => {
      void this.#inTurn(async () => {
        if (await stampOf(this.#options.clusterPolicyFile!) !== this.#stamp) await this.#reload();
      }).then(() => this.#watch());
    }, POLICY_POLL_MS);
  }

  /** One reading at a time; what goes wrong is told by `#reload` itself. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    return this.#reading = this.#reading.then(work).catch((error) => {
      this.#options.log.error("cannot reload the policy", { error: String(error) });
    });
  }

  async #reload(): Promise<void> {
    const { clusterPolicyFile: file, log, observe } = this.#options;
    if (file === undefined) return;
    this.#stamp = await stampOf(file);
    const before = this.#current;
    try {
      this.#current = await this.#read(file);
    } catch (error) {
      this.#reloadError = error instanceof Error ? error.message : String(error);
      observe?.({ kind: "reload", outcome: "failed" });
      log.error("the new policy is not taken, the old one stays", {
        error: this.#reloadError,
        policy: before?.policy.name,
        id: before?.policy.id,
      });
      return;
    }
    this.#reloadError = "";
    observe?.({ kind: "reload", outcome: "ok" });
    const { policy: { name, mode, id }, notes } = this.#current;
    log.info("policy reloaded", { policy: name, mode, id, changed: id !== before?.policy.id });
    for (const note of notes) log.warn("the policy may be meant otherwise", { file, note });
    if (id !== before?.policy.id) { for (const listener of this.#listeners) listener(); }
  }

  async #read(file: string): Promise<LoadedPolicy> {
    const parser = await this.#loadParser();
    let bytes: Uint8Array;
    try {
      const { size } = await Deno.stat(file);
      // The parser refuses what has grown since.
      if (size > MAX_POLICY_BYTES) {
        throw new Error(`it has ${size} bytes, at most ${MAX_POLICY_BYTES} are read`);
      }
      bytes = await Deno.readFile(file);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      throw new PolicyError(file, [{ path: "", message }], { cause: error });
    }
    return { ...parser.parse(bytes, file), source: file, loadedAtMs: this.#options.nowMs() };
  }

  /** Compiling the schema takes its time: nobody does who has no policy. */
  #loadParser(): Promise<PolicyParser> {
    return this.#parser ??= import("./parse.ts").then(({ PolicyParser }) => new PolicyParser());
  }
}

/** What tells one state of a file from another; empty when there is none. Links are followed. */
async function stampOf(file: string): Promise<string> {
  try {
    const { mtime, size, ino, dev } = await Deno.stat(file);
    return `${dev} ${ino} ${size} ${mtime?.getTime()}`;
  } catch {
    return "";
  }
}
