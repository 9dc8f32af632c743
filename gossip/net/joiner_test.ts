import assert from "node:assert/strict";
import { Endpoint } from "../endpoint.ts";
import { silentLog } from "../log.ts";
import { seededRandom } from "../random.ts";
import { Joiner, type JoinerOptions } from "./joiner.ts";

/** A joiner over a table of who answers; time passes at once, pauses are noted. */
function bench(answers: (endpoint: string, calls: number) => string | undefined) {
  const calls: string[] = [];
  const pauses: number[] = [];
  let underWay = 0;
  let most = 0;
  const options: JoinerOptions = {
    random: seededRandom(1),
    log: silentLog,
    clock: {
      now: () => 0,
      after(delayMs, run) {
        pauses.push(delayMs);
        queueMicrotask(run);
        return () => {};
      },
    },
    resolver: {
      host: (name) =>
        name === "self.test" ? Promise.resolve(["10.0.0.1"]) : Promise.reject(new Error("no such host")),
      service: () => Promise.reject(new Error("no such service")),
    },
    defaultPort: () => 7946,
    isSelf: (endpoint) => endpoint.equals(new Uint8Array([10, 0, 0, 1]), 7946),
    isAlone: () => calls.length > 0 && calls.every((endpoint) => endpoint === "127.0.1.1:7946"),
    async contact(endpoint) {
      calls.push(endpoint.toString());
      most = Math.max(most, ++underWay);
      await Promise.resolve();
      underWay--;
      return answers(endpoint.toString(), calls.length);
    },
  };
  return { joiner: new Joiner(options), calls, pauses, most: () => most };
}

Deno.test("a join asks a few addresses at once, each once, and counts who answered", async () => {
  const { joiner, calls, most } = bench((endpoint) => endpoint.startsWith("10.0.1.") ? undefined : "refused");
  const addresses = Array.from({ length: 9 }, (_, i) => `10.0.${i % 2}.${10 + i}`);
  assert.equal(await joiner.join([...addresses, addresses[1]], {}), 4);
  assert.deepEqual([calls.length, most()], [9, 4]);
});

Deno.test("a join passes over this node's own address, and needs no one else where only that is named", async () => {
  const { joiner, calls } = bench(() => undefined);
  assert.equal(await joiner.join(["self.test", "10.0.0.1:7946", "10.0.0.1:7947"], {}), 1);
  assert.deepEqual(calls, ["10.0.0.1:7947"]);
  assert.equal(await joiner.join(["self.test"], {}), 0);
});

Deno.test("a join that this node itself answered, at an address it does not know as its own, counts for nothing", async () => {
  const { joiner } = bench((endpoint) => endpoint.startsWith("127.0.1.1") ? undefined : "refused");
  assert.equal(await joiner.join(["127.0.1.1"], {}), 0);
  const both = bench(() => undefined);
  assert.equal(await both.joiner.join(["127.0.1.1", "10.3.3.3"], {}), 2);
});

Deno.test("a join that nobody answers says so for every address", async () => {
  const { joiner } = bench(() => "refused");
  const join = joiner.join(["10.1.1.1", "nowhere.test"], {});
  await assert.rejects(() => join, (error: Error) => {
    assert.match(error.message, /^Cannot join "10.1.1.1, nowhere.test": /);
    return /10.1.1.1:7946: refused/.test(error.message) && /no such host/.test(error.message);
  });
});

Deno.test("a retried join waits longer from time to time, with jitter, up to its limit", async () => {
  const { joiner, pauses } = bench((_, calls) => calls < 9 ? "refused" : undefined);
  assert.equal(await joiner.retry(["10.1.1.1"], { firstPauseMs: 100, longestPauseMs: 1_000 }), 1);
  const bounds = [100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000];
  assert.equal(pauses.length, bounds.length);
  for (const [i, bound] of bounds.entries()) {
    assert.ok(pauses[i] >= bound / 2 && pauses[i] <= bound, `pause ${i} is ${pauses[i]} ms`);
  }
  assert.equal(new Set(pauses.slice(4)).size > 1, true, "the pauses vary");
});

Deno.test("a retried join ends when it is told to", async () => {
  const stop = new AbortController();
  const { joiner } = bench((_, calls) => {
    if (calls === 3) stop.abort(new Error("enough"));
    return "refused";
  });
  await assert.rejects(() => joiner.retry(["10.1.1.1"], { signal: stop.signal }), /enough/);
});

Deno.test("endpoints of one address under several names are asked once", async () => {
  const { joiner, calls } = bench(() => undefined);
  const text = new Endpoint(new Uint8Array([10, 2, 2, 2]), 7946).toString();
  await joiner.join([text, "10.2.2.2", "x/10.2.2.2:7946"], {});
  assert.deepEqual(calls, [text]);
});
