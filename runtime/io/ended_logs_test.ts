import assert from "node:assert/strict";
import { ENDED_LOG_MS, type EndedLogLimits, EndedLogs } from "./ended_logs.ts";
import { readLog } from "./log_reader.ts";

class Bench implements AsyncDisposable {
  private constructor(readonly dir: string, readonly logs: EndedLogs) {}

  static async create(limits: Partial<EndedLogLimits> = {}): Promise<Bench> {
    const dir = await Deno.makeTempDir();
    const logs = new EndedLogs(`${dir}/ended`, { logLimits: { maxBytes: 1 << 20, maxFiles: 1 }, limits });
    await logs.start();
    return new Bench(dir, logs);
  }

  async end(id: string, text: string): Promise<void> {
    await Deno.writeTextFile(`${this.dir}/${id}.log`, text);
    await this.logs.keep(id, `${this.dir}/${id}.log`);
  }

  async text(id: string): Promise<string | undefined> {
    const file = await this.logs.find(id);
    if (file === undefined) return undefined;
    const chunks = await Array.fromAsync(readLog(file));
    return chunks.map((chunk) => new TextDecoder().decode(chunk)).join("");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.dir, { recursive: true });
  }
}

Deno.test("the log of a container that is gone can be read; the newest of its id counts", async () => {
  await using bench = await Bench.create();
  await bench.end("a", "one\n");
  assert.equal(await bench.text("a"), "one\n");
  await bench.end("a", "two\n");
  assert.equal(await bench.text("a"), "two\n");
  assert.equal(await bench.text("b"), undefined);
});

Deno.test("an empty log is not kept, and neither is one that is not there", async () => {
  await using bench = await Bench.create();
  await bench.end("a", "");
  await bench.logs.keep("b", `${bench.dir}/b.log`);
  assert.equal(await bench.text("a"), undefined);
  assert.equal(await bench.text("b"), undefined);
});

Deno.test("ended logs go when they are a day old", async () => {
  await using bench = await Bench.create();
  await bench.end("a", "one\n");
  assert.equal(await bench.logs.sweep(Date.now()), 0);
  assert.equal(await bench.logs.sweep(Date.now() + ENDED_LOG_MS + 1_000), 1);
  assert.deepEqual([...Deno.readDirSync(`${bench.dir}/ended`)], []);
});

Deno.test("of too many ended logs, or too large ones, the oldest go first", async () => {
  await using few = await Bench.create({ maxLogs: 2 });
  await using small = await Bench.create({ maxBytes: 200_000 });
  for (const [i, id] of ["a", "b", "c"].entries()) {
    for (const [bench, text] of [[few, "x\n"], [small, "x".repeat(90_000)]] as const) {
      await bench.end(id, text);
      const at = new Date(Date.now() - 60_000 + i * 1_000);
      await Deno.utime(`${bench.dir}/ended/${id}.log`, at, at);
    }
  }
  for (const bench of [few, small]) {
    assert.equal(await bench.logs.sweep(Date.now()), 1);
    assert.equal(await bench.text("a"), undefined);
    assert(await bench.text("b"));
  }
});
