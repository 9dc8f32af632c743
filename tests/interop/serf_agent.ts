import { freePort } from "../support/free_port.ts";

/** Longest wait for anything an agent should do. */
const DEADLINE_MS = 60_000;
const POLL_MS = 100;
/** For all answers to a query, on a busy machine, milliseconds. All of it is waited, as nobody knows how many there will be. */
export const ANSWER_MS = 6_000;
/** The same as a flag of `serf query`. */
export const ANSWER_FLAG = `-timeout=${ANSWER_MS}ms`;

/** One of Debian's `serf` agents as a process of its own, on loopback or in a network namespace. */
export class SerfAgent implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #logDone: Promise<void>;
  #log = "";

  private constructor(
    readonly name: string,
    readonly address: string,
    readonly rpc: string,
    readonly netns: string | undefined,
    process: Deno.ChildProcess,
  ) {
    this.#process = process;
    this.#logDone = Promise.all([this.#collect(process.stdout), this.#collect(process.stderr)]).then(
      () => {},
    );
  }

  /** Starts an agent and waits until it answers. `args` are further flags of `serf agent`. */
  static async start(
    name: string,
    args: readonly string[] = [],
    options: { host?: string; port?: number; netns?: string } = {},
  ): Promise<SerfAgent> {
    const host = options.host ?? "127.0.0.1";
    const port = options.port ?? freePort();
    const rpc = `127.0.0.1:${freePort()}`;
    const flags = [
      "agent",
      `-node=${name}`,
      `-bind=${host}:${port}`,
      `-rpc-addr=${rpc}`,
      "-log-level=debug",
      ...args,
    ];
    const process = command(options.netns, flags).spawn();
    const agent = new SerfAgent(name, `${host}:${port}`, rpc, options.netns, process);
    try {
      await until(`agent "${name}" answers`, async () => (await agent.tryRun("members")).ok);
    } catch (error) {
      await agent[Symbol.asyncDispose]();
      throw new Error(`Cannot start agent "${name}": ${agent.#log}`, { cause: error });
    }
    return agent;
  }

  get log(): string {
    return this.#log;
  }

  get exited(): Promise<Deno.CommandStatus> {
    return this.#process.status;
  }

  /** Runs a `serf` command against this agent; throws with its output where it fails. */
  async run(verb: string, ...args: string[]): Promise<string> {
    const { ok, output } = await this.tryRun(verb, ...args);
    if (!ok) throw new Error(`Cannot run "serf ${verb} ${args.join(" ")}": ${output}`);
    return output;
  }

  async tryRun(verb: string, ...args: string[]): Promise<{ ok: boolean; output: string }> {
    const result = await command(this.netns, [verb, `-rpc-addr=${this.rpc}`, ...args]).output();
    const output = new TextDecoder().decode(result.stdout) + new TextDecoder().decode(result.stderr);
    return { ok: result.success, output };
  }

  /** Asks all members by `serf query` with raw bytes, of which none is 0; resolves what it prints. */
  async queryRaw(name: string, payload: Uint8Array): Promise<string> {
    // Bytes that are no UTF-8 reach a process only through a shell.
    const bytes = Array.from(payload, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
    const script = `exec serf query -rpc-addr="$1" "$2" "$3" $'${bytes}'`;
    const { success, stdout, stderr } = await new Deno.Command("bash", {
      args: ["-c", script, "bash", this.rpc, ANSWER_FLAG, name],
    }).output();
    const output = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    if (!success) throw new Error(`Cannot run "serf query ${name}": ${output}`);
    return output;
  }

  /** Members as this agent sees them: name to `status tags`. */
  async members(): Promise<Map<string, string>> {
    const { members } = JSON.parse(await this.run("members", "-format=json")) as {
      members: { name: string; status: string; tags: Record<string, string> }[];
    };
    return new Map(members.map((member) => [member.name, `${member.status} ${JSON.stringify(member.tags)}`]));
  }

  /** Status of one member as this agent sees it; undefined where it does not know it. */
  async status(name: string): Promise<string | undefined> {
    return (await this.members()).get(name)?.split(" ")[0];
  }

  /** Ends the process by a signal and waits for it. */
  async kill(signal: Deno.Signal): Promise<void> {
    this.#process.kill(signal);
    await this.#process.status;
    await this.#logDone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#process.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // It has ended already.
    }
    await this.#process.status;
    await this.#logDone;
  }

  async #collect(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) this.#log += text;
  }
}

/** Waits until `check` gives a value that counts as true; throws after a minute. */
export async function until<T>(
  what: string,
  check: () => T | Promise<T>,
  deadlineMs = DEADLINE_MS,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (performance.now() > end) throw new Error(`Cannot see that ${what}: waited ${deadlineMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** Installs the package where it is missing. */
export async function installSerf(): Promise<void> {
  const found = await new Deno.Command("sh", { args: ["-c", "command -v serf"] }).output();
  if (found.success) return;
  const install = await new Deno.Command("apt-get", {
    // Test files run side by side, and each installs what it misses.
    args: ["-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends", "serf"],
  })
    .output();
  if (!install.success) throw new Error(`Cannot install serf: ${new TextDecoder().decode(install.stderr)}`);
}

function command(netns: string | undefined, args: readonly string[]): Deno.Command {
  const stdio = { stdout: "piped", stderr: "piped", stdin: "null" } as const;
  if (netns === undefined) return new Deno.Command("serf", { args: [...args], ...stdio });
  return new Deno.Command("nsenter", { args: [`--net=${netns}`, "serf", ...args], ...stdio });
}
