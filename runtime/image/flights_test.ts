import assert from "node:assert/strict";
import { RuntimeError } from "../errors.ts";
import { Flights } from "./flights.ts";

/** Work that waits to be told how to end, and counts its starts. */
class Work {
  starts = 0;
  signal?: AbortSignal;
  onProgress?: (progress: number) => void;
  #end = Promise.withResolvers<string>();

  readonly run = async (options: { signal: AbortSignal; onProgress: (progress: number) => void }) => {
    this.starts++;
    this.#end = Promise.withResolvers();
    Object.assign(this, options);
    options.signal.addEventListener("abort", () => this.#end.reject(new Error("aborted")), { once: true });
    return await this.#end.promise;
  };

  finish(value: string): void {
    this.#end.resolve(value);
  }
}

const isCanceled = (error: unknown) => error instanceof RuntimeError && error.code === "canceled";

Deno.test("work under one key is done once, and all hear of its progress", async () => {
  const flights = new Flights<string, number>();
  const work = new Work();
  const heard: string[] = [];
  const joined = ["a", "b"].map((who) =>
    flights.join("key", work.run, { onProgress: (n) => heard.push(`${who}${n}`) })
  );
  const other = flights.join("other", () => Promise.resolve("other"), {});
  work.onProgress!(1);
  work.finish("done");
  assert.deepEqual(await Promise.all(joined), ["done", "done"]);
  assert.equal(await other, "other");
  assert.equal(work.starts, 1);
  assert.deepEqual(heard, ["a1", "b1"]);
  const again = flights.join("key", work.run, {});
  work.finish("again");
  assert.equal(await again, "again");
  assert.equal(work.starts, 2);
});

Deno.test("one of two may leave; the last one's leaving aborts the work and waits for its end", async () => {
  const flights = new Flights<string, number>();
  const work = new Work();
  const [first, second] = [new AbortController(), new AbortController()];
  const one = flights.join("key", work.run, { signal: first.signal });
  const two = flights.join("key", work.run, { signal: second.signal });
  first.abort();
  await assert.rejects(one, isCanceled);
  assert.equal(work.signal!.aborted, false);
  second.abort();
  await assert.rejects(two, isCanceled);
  assert.equal(work.signal!.aborted, true);
});

Deno.test("who comes while the work is being aborted waits for its end and starts it afresh", async () => {
  const flights = new Flights<string, number>();
  const aborted = Promise.withResolvers<void>();
  const cleanedUp = Promise.withResolvers<void>();
  let starts = 0;
  const work = async ({ signal }: { signal: AbortSignal }) => {
    if (++starts > 1) return "second";
    signal.addEventListener("abort", () => aborted.resolve(), { once: true });
    await aborted.promise;
    await cleanedUp.promise;
    throw new Error("aborted");
  };
  const controller = new AbortController();
  const one = flights.join("key", work, { signal: controller.signal });
  controller.abort();
  await aborted.promise;
  const others = [flights.join("key", work, {}), flights.join("key", work, {})];
  assert.equal(starts, 1);
  cleanedUp.resolve();
  await assert.rejects(one, isCanceled);
  assert.deepEqual(await Promise.all(others), ["second", "second"]);
  assert.equal(starts, 2);
});

Deno.test("a failure is everybody's, and forgotten", async () => {
  const flights = new Flights<string, number>();
  const fail = () => Promise.reject(new Error("no"));
  await Promise.all([1, 2].map(() => assert.rejects(flights.join("key", fail, {}), /no/)));
  assert.equal(await flights.join("key", () => Promise.resolve("yes"), {}), "yes");
});

Deno.test("who has left already starts nothing", async () => {
  const flights = new Flights<string, number>();
  const work = new Work();
  await assert.rejects(flights.join("key", work.run, { signal: AbortSignal.abort() }), isCanceled);
  assert.equal(work.starts, 0);
});
