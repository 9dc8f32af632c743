import assert from "node:assert/strict";
import { RuntimeError } from "../errors.ts";
import { MAX_ATTEMPTS, parseRetryAfter, retryDelayMs, TransientError, waitMs, withRetries } from "./retry.ts";

Deno.test("the delay doubles up to its limit, less a random quarter", () => {
  assert.deepEqual([1, 2, 3, 4, 7, 50].map((n) => retryDelayMs(n, 0)), [250, 500, 1000, 2000, 15000, 15000]);
  assert.equal(retryDelayMs(1, 1), 187.5);
});

Deno.test("what the registry asks for is waited, up to a minute", () => {
  assert.equal(retryDelayMs(1, 0, 5_000), 5_000);
  assert.equal(retryDelayMs(6, 0, 5_000), 8_000);
  assert.equal(retryDelayMs(1, 0, 86_400_000), 60_000);
});

Deno.test("Retry-After is seconds or a date", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");
  assert.equal(parseRetryAfter("3", now), 3_000);
  assert.equal(parseRetryAfter(" 0 ", now), 0);
  assert.equal(parseRetryAfter("Thu, 01 Jan 2026 00:00:07 GMT", now), 7_000);
  assert.equal(parseRetryAfter("Wed, 31 Dec 2025 00:00:00 GMT", now), 0);
  for (const value of [null, "", "soon", "99999999999"]) assert.equal(parseRetryAfter(value, now), undefined);
});

Deno.test("transient failures are tried again a limited number of times", async () => {
  const waits: number[] = [];
  let attempts = 0;
  await assert.rejects(
    withRetries(() => Promise.reject(new TransientError(`failure ${++attempts}`)), {
      what: 'pull image "x"',
      wait: (ms) => Promise.resolve(void waits.push(ms)),
    }),
    (error: unknown) => {
      assert(error instanceof RuntimeError);
      assert.equal(error.code, "unavailable");
      assert.equal(error.message, `Cannot pull image "x": failure ${MAX_ATTEMPTS}`);
      assert(error.cause instanceof TransientError);
      return true;
    },
  );
  assert.equal(attempts, MAX_ATTEMPTS);
  assert.equal(waits.length, MAX_ATTEMPTS - 1);
});

Deno.test("other failures are final", async () => {
  let attempts = 0;
  const attempt = () => Promise.reject(new RuntimeError("not-found", `no ${++attempts}`));
  await assert.rejects(withRetries(attempt, { what: "x", wait: () => assert.fail() }), /no 1/);
});

Deno.test("a wait ends with its signal", async () => {
  const controller = new AbortController();
  const waiting = waitMs(1_000_000, controller.signal);
  controller.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
  await assert.rejects(waitMs(1_000_000, controller.signal), /enough/);
  await waitMs(0, new AbortController().signal);
});
