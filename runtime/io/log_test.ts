import assert from "node:assert/strict";
import { RuntimeError } from "../errors.ts";
import { LogFile } from "./log_file.ts";
import { READ_BUFFER_BYTES, readLog } from "./log_reader.ts";
import { FileLogStorage, type LogStorage } from "./log_storage.ts";
import {
  capacityOf,
  decodeBase,
  encodeBase,
  type LogLimits,
  MAX_UNCUT_LINE_BYTES,
  trimTarget,
} from "./log_window.ts";

const LIMITS: LogLimits = { maxBytes: 64 << 10, maxFiles: 2 };

/** A log in a directory of its own. */
class TestLog implements AsyncDisposable {
  private constructor(readonly directory: string, readonly file: LogFile, readonly limits: LogLimits) {}

  static async create(limits = LIMITS): Promise<TestLog> {
    const directory = await Deno.makeTempDir({ prefix: "hypercore-log-" });
    const file = new LogFile(`${directory}/a.log`, { limits });
    await file.open();
    return new TestLog(directory, file, limits);
  }

  append(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    return Deno.writeFile(this.file.path, bytes, { append: true, create: false });
  }

  /** As after a restart of the agent. */
  async reopen(storage?: LogStorage): Promise<LogFile> {
    const file = new LogFile(this.file.path, { limits: this.limits, storage });
    await file.open();
    return file;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }
}

async function text(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let all = "";
  for await (const chunk of chunks) all += decoder.decode(chunk, { stream: true });
  return all + decoder.decode();
}

/** Numbered lines of random length. */
function* numberedLines(random: () => number, from = 0): Generator<string, never> {
  for (let n = from;; n++) yield `${n} ${"x".repeat(Math.floor(random() ** 4 * 3000))}\n`;
}

/** A small seeded generator (mulberry32). */
function seeded(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

async function allocatedBytes(path: string): Promise<number> {
  return ((await Deno.stat(path)).blocks ?? 0) * 512;
}

Deno.test("the window moves only when the log has reached its limits", () => {
  const capacity = capacityOf(LIMITS);
  assert.equal(capacity, 3 * LIMITS.maxBytes);
  assert.equal(trimTarget(0, capacity - 1, LIMITS), undefined);
  assert.equal(trimTarget(0, capacity, LIMITS), LIMITS.maxBytes);
  assert.equal(trimTarget(1000, capacity + 999, LIMITS), undefined);
  assert.equal(trimTarget(0, 100, { maxBytes: 100, maxFiles: 0 }), 50);
});

Deno.test("a base survives its file format, and nothing else is taken for one", () => {
  for (const base of [0, 1, 4096, Number.MAX_SAFE_INTEGER]) assert.equal(decodeBase(encodeBase(base)), base);
  assert.equal(encodeBase(0).length, encodeBase(Number.MAX_SAFE_INTEGER).length);
  for (const bad of ["", "0\n", "99999999999999999999\n", "0000000000000000000x\n", "00000000000000000001"]) {
    assert.equal(decodeBase(new TextEncoder().encode(bad)), undefined, bad);
  }
});

Deno.test("trimming keeps whole lines, the newest ones, and gives the disk its space back", async () => {
  await using log = await TestLog.create();
  const lines = numberedLines(seeded(1));
  const written: string[] = [];
  for (let bytes = 0; bytes < 2 << 20;) {
    const line = lines.next().value;
    written.push(line);
    bytes += line.length;
  }
  await log.append(written.join(""));
  const dropped = await log.file.trim();
  assert(dropped > 0);
  const kept = await text(readLog(log.file));
  const all = written.join("");
  assert(all.endsWith(kept));
  assert(
    written.some((_, at) => written.slice(at).join("").length === kept.length),
    "begins with a whole line",
  );
  assert(kept.length <= LIMITS.maxBytes * LIMITS.maxFiles);
  assert(kept.length > LIMITS.maxBytes * LIMITS.maxFiles - 4096);
  assert(await allocatedBytes(log.file.path) <= capacityOf(LIMITS));
  assert.equal(await log.file.trim(), 0, "nothing to do the second time");
});

Deno.test("a line longer than the scan limit is cut rather than kept for ever", async () => {
  await using log = await TestLog.create();
  await log.append("x".repeat(MAX_UNCUT_LINE_BYTES * 3));
  assert(await log.file.trim() > 0);
  assert.equal((await text(readLog(log.file))).length, LIMITS.maxBytes * LIMITS.maxFiles);
});

Deno.test("an agent killed at any step of a trim loses and doubles no line that is kept", async () => {
  for (
    const step of ["before the base is written", "after the base is written", "after the punch"] as const
  ) {
    await using log = await TestLog.create();
    const lines = numberedLines(seeded(7));
    const written = Array.from({ length: 4000 }, () => lines.next().value).join("");
    await log.append(written);
    const real = new FileLogStorage(log.file.path, log.file.basePath);
    const die = () => Promise.reject(new Error(`killed ${step}`));
    const dying = await log.reopen({
      readBase: () => real.readBase(),
      writeBase: (base) => step === "before the base is written" ? die() : real.writeBase(base),
      punch: async (from, to) => {
        if (step === "after the punch") await real.punch(from, to);
        await die();
      },
    });
    await assert.rejects(dying.trim(), /killed/);
    await log.append("after the crash\n");

    const next = await log.reopen();
    await next.trim();
    const kept = await text(readLog(next));
    assert((written + "after the crash\n").endsWith(kept), step);
    assert(/^\d+ x*\n/.test(kept), `${step}: begins with a whole line`);
    assert(!kept.includes("\0"), step);
    assert(await allocatedBytes(next.path) <= capacityOf(LIMITS), `${step}: space is given back`);
  }
});

Deno.test("a punch that fails once is made up for by the next trim", async () => {
  await using log = await TestLog.create();
  await log.append("line\n".repeat(100_000));
  const real = new FileLogStorage(log.file.path, log.file.basePath);
  let failures = 1;
  const file = await log.reopen({
    readBase: () => real.readBase(),
    writeBase: (base) => real.writeBase(base),
    punch: (from, to) => failures-- > 0 ? Promise.reject(new Error("busy")) : real.punch(from, to),
  });
  await assert.rejects(file.trim(), /busy/);
  await file.trim();
  assert(await allocatedBytes(file.path) <= capacityOf(LIMITS));
});

Deno.test("the base is found again when the note of it is lost or damaged", async () => {
  for (const damage of ["lost", "damaged"] as const) {
    await using log = await TestLog.create();
    const lines = numberedLines(seeded(3));
    await log.append(Array.from({ length: 4000 }, () => lines.next().value).join(""));
    await log.file.trim();
    const kept = await text(readLog(log.file));
    if (damage === "lost") await Deno.remove(log.file.basePath);
    else await Deno.writeTextFile(log.file.basePath, "garbage");
    const next = await log.reopen();
    assert.equal(await text(readLog(next)), kept, damage);
    assert.equal((await log.reopen()).base, log.file.base);
  }
});

Deno.test("a log emptied from outside begins anew", async () => {
  await using log = await TestLog.create();
  await log.append("line\n".repeat(100_000));
  await log.file.trim();
  await Deno.truncate(log.file.path, 0);
  await log.append("fresh\n");
  await log.file.trim();
  assert.equal(await text(readLog(log.file)), "fresh\n");
  assert.equal((await log.reopen()).base, 0);
});

Deno.test("tail gives exactly the last lines, however they lie in blocks", async () => {
  await using log = await TestLog.create({ maxBytes: 8 << 20, maxFiles: 1 });
  const random = seeded(11);
  const lines = numberedLines(random);
  const written: string[] = [];
  for (let n = 0; n < 1500; n++) written.push(lines.next().value);
  written.push(`${"y".repeat(READ_BUFFER_BYTES * 2)}\n`, "\n", "\n", "last without end");
  await log.append(written.join(""));
  for (const tail of [0, 1, 2, 3, 4, 5, 100, 1000, 1503, 1504, 1505, 1_000_000]) {
    const expected = tail === 0 ? "" : written.slice(-tail).join("");
    assert.equal(await text(readLog(log.file, { tail })), expected, `tail ${tail}`);
  }
  await log.append("\n");
  assert.equal(await text(readLog(log.file, { tail: 1 })), "last without end\n");
});

Deno.test("tail never goes behind the window", async () => {
  await using log = await TestLog.create();
  await log.append("line\n".repeat(100_000));
  await log.file.trim();
  const all = await text(readLog(log.file, { tail: 1_000_000 }));
  assert.equal(all.length, await log.file.size() - log.file.base);
  assert.match(all, /^(line\n)+$/);
});

Deno.test("an empty log reads as nothing", async () => {
  await using log = await TestLog.create();
  assert.equal(await text(readLog(log.file)), "");
  assert.equal(await text(readLog(log.file, { tail: 10 })), "");
});

Deno.test("a 100 MB line comes in pieces of bounded size", async () => {
  await using log = await TestLog.create({ maxBytes: 1 << 30, maxFiles: 1 });
  const block = new Uint8Array(1 << 20).fill(120);
  for (let n = 0; n < 100; n++) await log.append(block);
  let bytes = 0;
  for await (const chunk of readLog(log.file)) {
    assert(chunk.length <= READ_BUFFER_BYTES);
    bytes += chunk.length;
  }
  assert.equal(bytes, 100 << 20);
  let tailBytes = 0;
  for await (const chunk of readLog(log.file, { tail: 1 })) tailBytes += chunk.length;
  assert.equal(tailBytes, 100 << 20);
});

Deno.test("a follower gets each byte once, in whole lines, while writers append and the log is trimmed", async () => {
  for (const seed of [1, 2, 3, 4, 5]) {
    const random = seeded(seed);
    await using log = await TestLog.create({ maxBytes: 256 << 10, maxFiles: 3 });
    const done = new AbortController();
    const gaps: number[] = [];
    const chunks: string[] = [];
    let received = 0;
    let progressed = () => {};
    const follower = (async () => {
      const options = { follow: true, writerEnded: done.signal, onGap: (bytes: number) => gaps.push(bytes) };
      for await (const chunk of readLog(log.file, options)) {
        const piece = new TextDecoder().decode(chunk);
        chunks.push(piece);
        received += piece.length;
        progressed();
      }
    })();
    const lines = numberedLines(random);
    let written = "";
    for (let burst = 0; burst < 60; burst++) {
      let data = "";
      for (const size = random() * 60_000; data.length < size;) data += lines.next().value;
      // Split anywhere, as pipes do.
      const cut = Math.floor(random() * data.length);
      await log.append(data.slice(0, cut));
      await log.append(data.slice(cut));
      written += data;
      await log.file.trim();
      // The reader may lag, but by less than the window: that is what keeps it from losing anything.
      while (written.length - received > (512 << 10)) {
        await new Promise<void>((resolve) => progressed = resolve);
      }
    }
    done.abort();
    await follower;
    assert.deepEqual(gaps, [], `seed ${seed}`);
    assert(log.file.base > 0, "the log was trimmed");
    assert.equal(chunks.join(""), written, `seed ${seed}`);
    for (const chunk of chunks) assert(chunk.endsWith("\n"), "whole lines");
  }
});

Deno.test("a follower that is slower than the window skips to what is kept and is told how much it missed", async () => {
  await using log = await TestLog.create();
  const gaps: number[] = [];
  const stop = new AbortController();
  const reader = readLog(log.file, { follow: true, signal: stop.signal, onGap: (bytes) => gaps.push(bytes) });
  await log.append("first\n");
  assert.equal(new TextDecoder().decode((await reader.next()).value), "first\n");
  await log.append("line\n".repeat(100_000));
  await log.file.trim();
  await log.append("end\n");
  let rest = "";
  while (!rest.endsWith("end\n")) rest += new TextDecoder().decode((await reader.next()).value);
  assert.match(rest, /^(line\n)+end\n$/);
  assert.equal(gaps.length, 1);
  assert.equal(gaps[0] + rest.length, 500_000 + 4);
  stop.abort();
  assert((await reader.next()).done);
});

Deno.test("a follower keeps half a line back until it is whole, and gives it out when the log is removed", async () => {
  await using log = await TestLog.create();
  await log.append("whole\nha");
  const reader = readLog(log.file, { follow: true });
  const next = async () => new TextDecoder().decode((await reader.next()).value);
  assert.equal(await next(), "whole\n");
  const second = next();
  await log.append("lf\nrest");
  assert.equal(await second, "half\n");
  const third = next();
  await log.file.remove();
  assert.equal(await third, "rest");
  assert((await reader.next()).done);
});

Deno.test("partial lines come at once where they are asked for", async () => {
  await using log = await TestLog.create();
  const stop = new AbortController();
  await log.append("old\nbooted\n");
  const reader = readLog(log.file, { follow: true, partialLines: true, tail: 1, signal: stop.signal });
  assert.equal(new TextDecoder().decode((await reader.next()).value), "booted\n");
  const prompt = reader.next();
  await log.append("login: ");
  assert.equal(new TextDecoder().decode((await prompt).value), "login: ");
  stop.abort();
  assert((await reader.next()).done);
});

Deno.test("leaving or aborting a follower gives back its watch", async () => {
  await using log = await TestLog.create();
  await log.append("a\n");
  const stop = new AbortController();
  const aborted = readLog(log.file, { follow: true, signal: stop.signal })[Symbol.asyncIterator]();
  assert.deepEqual(await aborted.next(), { value: new TextEncoder().encode("a\n"), done: false });
  const rest = aborted.next();
  for await (const _ of readLog(log.file, { follow: true })) break;
  stop.abort();
  assert.equal((await rest).done, true);
  assert.equal(log.file.changes.subscribers, 0);
});

Deno.test("reading a log that is not there says so", async () => {
  await using log = await TestLog.create();
  await log.file.remove();
  await log.file.remove();
  await assert.rejects(
    text(readLog(log.file)),
    (error) =>
      error instanceof RuntimeError && error.code === "not-found" && error.message.includes(log.file.path),
  );
});
