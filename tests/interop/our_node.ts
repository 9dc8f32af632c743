import type { MemberView, NodeCommand, NodeOptions } from "./node.ts";

/** One of our nodes as a process of its own, on loopback or in a network namespace. */
export class OurNode implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #lines: AsyncGenerator<string>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  #turn: Promise<unknown> = Promise.resolve();
  #port = 0;

  private constructor(readonly name: string, process: Deno.ChildProcess) {
    this.#process = process;
    this.#lines = lines(process.stdout);
    this.#writer = process.stdin.getWriter();
  }

  /** Starts a node and waits until it runs and, where it was told to, has joined. `netns` is the path of a namespace. */
  static async start(options: NodeOptions, netns?: string): Promise<OurNode> {
    const script = new URL("./node.ts", import.meta.url).pathname;
    const config = new URL("../../deno.json", import.meta.url).pathname;
    const args = ["run", "-A", "--no-check", `--config=${config}`, script, JSON.stringify(options)];
    const stdio = { stdin: "piped", stdout: "piped", stderr: "inherit" } as const;
    const command = netns === undefined
      ? new Deno.Command(Deno.execPath(), { args, ...stdio })
      : new Deno.Command("nsenter", { args: [`--net=${netns}`, Deno.execPath(), ...args], ...stdio });
    const node = new OurNode(options.name, command.spawn());
    try {
      node.#port = JSON.parse(await node.#line()) as number;
    } catch (error) {
      await node.kill("SIGKILL");
      throw error;
    }
    return node;
  }

  /** Port that it is bound to. */
  get port(): number {
    return this.#port;
  }

  /** Asks the node something; throws what it throws. */
  ask<T>(command: NodeCommand): Promise<T> {
    const turn = this.#turn.then(async () => {
      await this.#writer.write(new TextEncoder().encode(`${JSON.stringify(command)}\n`));
      const { value, error } = JSON.parse(await this.#line()) as { value: T; error?: string };
      if (error !== undefined) throw new Error(error);
      return value;
    });
    this.#turn = turn.catch(() => {});
    return turn;
  }

  /** All members as the node sees them. */
  async members(): Promise<Map<string, MemberView>> {
    return new Map(Object.entries(await this.ask<Record<string, MemberView>>({ do: "members" })));
  }

  /** Status of one member as the node sees it; undefined where it does not know it. */
  async status(name: string): Promise<string | undefined> {
    return (await this.members()).get(name)?.status;
  }

  /** Ends the process by a signal and waits for it. */
  async kill(signal: Deno.Signal): Promise<void> {
    try {
      this.#process.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // It has ended already.
    }
    await this.#end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill("SIGKILL");
  }

  async #end(): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.#process.status;
    while (!(await this.#lines.next()).done);
  }

  async #line(): Promise<string> {
    const { done, value } = await this.#lines.next();
    if (done) throw new Error(`Cannot ask node "${this.name}": it has ended`);
    return value;
  }
}

async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}
