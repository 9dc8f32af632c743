import assert from "node:assert/strict";
import type { Route } from "../mod.ts";
import type { StaleRoute } from "./contract.ts";
import { StaleRoutes, type StaleRoutesOptions } from "./stale_routes.ts";

const signal = new AbortController().signal;

function route(hostname: string): Route {
  return { id: "app", aliases: [], hostPort: 80, upstream: { kind: "tcp", hostname, port: 1 } };
}

function open(options: Partial<StaleRoutesOptions> = {}) {
  const reports: StaleRoute[] = [];
  const clock = { nowMs: 0 };
  const stale = new StaleRoutes({
    waitMs: 60_000,
    maxWaits: 2,
    now: () => clock.nowMs,
    report: (one) => reports.push(one),
    ...options,
  });
  return { stale, reports, clock };
}

Deno.test("a stale route is waited for until it leads elsewhere or is gone", async () => {
  const { stale } = open();
  let current: Route | undefined = route("a");
  const waiting = stale.wait(route("a"), () => current, signal);
  current = route("a"); // the same, in another table
  stale.changed();
  current = route("b");
  stale.changed();
  assert.equal(await waiting, current);
  assert.equal(await stale.wait(route("a"), () => current, signal), current);
  const gone = stale.wait(route("b"), () => current, signal);
  current = undefined;
  stale.changed();
  assert.equal(await gone, undefined);
});

Deno.test("waiting ends after its time, and with its signal", async () => {
  const { stale } = open({ waitMs: 1 });
  assert.equal(await stale.wait(route("a"), () => route("a"), signal), undefined);
  const { stale: patient } = open();
  const client = new AbortController();
  const waiting = patient.wait(route("a"), () => route("a"), client.signal);
  client.abort(new Error("gone"));
  await assert.rejects(waiting, /gone/);
});

Deno.test("only so many wait at a time", async () => {
  const { stale } = open({ maxWaits: 2 });
  let current = route("a");
  const wait = () => stale.wait(route("a"), () => current, signal);
  const waiting = [wait(), wait()];
  assert.equal(await wait(), undefined);
  current = route("b");
  stale.changed();
  assert.deepEqual(await Promise.all(waiting), [current, current]);
});

Deno.test("one route and node are reported once a second, and what is remembered of that is bounded", () => {
  const { stale, reports, clock } = open();
  const one: StaleRoute = { id: "app", hostPort: 80, node: "a", reason: "not-here", detail: "" };
  stale.report(one);
  stale.report(one);
  stale.report({ ...one, node: "b" });
  assert.equal(reports.length, 2);
  clock.nowMs = 1_000;
  stale.report(one);
  assert.equal(reports.length, 3);
  for (let n = 0; n < 5_000; n++) stale.report({ ...one, node: `${n}` });
  assert.equal(reports.length, 5_003);
});
