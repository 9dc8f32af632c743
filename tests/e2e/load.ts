import type { TestHost } from "../support/host.ts";
import { until } from "./live_agent.ts";

/** One request after the other, to hosts of the network in turn, as long as the script runs; a line for each answer. */
const SCRIPT = `
while [ ! -e "$1" ]; do
  for name in $2; do
    curl -s -m 20 -o "$1.body" -w '%{http_code} %{errormsg}\\n' -H "Host: $name" http://127.0.0.1:8080/
  done
done
rm -f "$1" "$1.body"
`;

/** The first of so many more answers of a host may be to a request that was under way. */
const SEEN_ANEW = 2;

/** Requests to workloads through the proxies of hosts, on and on. */
export class Load implements AsyncDisposable {
  readonly #children: Deno.ChildProcess[] = [];
  readonly #done: Promise<void>[] = [];
  readonly #stops: string[] = [];
  /** Answers that came at each host, failures among them. */
  readonly #counts = new Map<string, number>();
  #answered = 0;
  readonly #failures: string[] = [];
  /** What came at each host, in order; the same again and again once. */
  readonly #phases = new Map<string, string[]>();
  #isOver = false;

  /** Asks at each of the hosts for each of the names. */
  constructor(hosts: readonly TestHost[], ...names: string[]) {
    for (const host of hosts) {
      const stop = `${Deno.makeTempDirSync({ prefix: "hc-load-" })}/stop`;
      const child = host.spawn("/bin/sh", ["-c", SCRIPT, "load", stop, names.join(" ")], {
        stdin: "null",
        stdout: "piped",
        stderr: "null",
      });
      this.#stops.push(stop);
      this.#children.push(child);
      this.#counts.set(host.name, 0);
      this.#done.push(this.#read(host.name, child));
    }
  }

  /** Waits until so many more answers have come, and at each host some whose requests were sent after this call. */
  async until(more: number): Promise<void> {
    const before = new Map(this.#counts);
    await until(`${more} more answers`, () => {
      const news = [...this.#counts].map(([host, count]) => count - before.get(host)!);
      return news.reduce((sum, each) => sum + each, 0) >= more && news.every((each) => each >= SEEN_ANEW);
    });
  }

  /** Ends it; what came, also as each host's answers in order, the same again and again once. */
  async end(): Promise<{ answered: number; failures: string[]; phases: ReadonlyMap<string, string[]> }> {
    if (!this.#isOver) {
      this.#isOver = true;
      await Promise.all(this.#stops.map((stop) => Deno.writeTextFile(stop, "")));
      await Promise.all(this.#done);
      await Promise.all(this.#children.map((child) => child.status));
      for (const stop of this.#stops) await Deno.remove(stop.slice(0, -"/stop".length), { recursive: true });
    }
    return { answered: this.#answered, failures: this.#failures, phases: this.#phases };
  }

  async #read(host: string, child: Deno.ChildProcess): Promise<void> {
    let rest = "";
    const phases: string[] = [];
    this.#phases.set(host, phases);
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      this.#counts.set(host, this.#counts.get(host)! + lines.length);
      for (const line of lines) {
        const answer = line.replace(/ after \d+ ms.*/, "").trim();
        if (answer !== phases.at(-1)) phases.push(answer);
        if (line.startsWith("200 ")) this.#answered++;
        else this.#failures.push(`${host}: ${line}`);
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}
