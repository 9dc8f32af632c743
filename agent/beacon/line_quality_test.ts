import assert from "node:assert/strict";
import {
  LineQuality,
  LOSS_WINDOW,
  LOSS_WINDOW_MS,
  MAX_MEASURED_PEERS,
  MIN_LOSS_SAMPLES,
  RTT_SAMPLES,
} from "./line_quality.ts";

const direct = (node: string, rttMs: number) => ({ node, via: "direct" as const, rttMs });
const lost = (node: string, via: "late" | "stream" | "failed" = "failed") => ({
  node,
  via,
  rttMs: undefined,
});

Deno.test("latency is the median and jitter the standard deviation of the newest ten round trips", () => {
  const lines = new LineQuality();
  for (let i = 0; i < 30; i++) lines.record(direct("a", 500), i);
  for (let i = 0; i < RTT_SAMPLES; i++) lines.record(direct("a", i % 2 === 0 ? 10 : 14), 100 + i);
  assert.deepEqual(lines.to("a", 200), { latencyMs: 10, jitterMs: 2, packetLossPercent: 0 });
  assert.deepEqual(lines.to("b", 200), {});
});

Deno.test("loss counts every probe without an answer in time, over a sliding window", () => {
  const lines = new LineQuality();
  lines.record(lost("a"), 0);
  assert.equal(lines.to("a", 0).packetLossPercent, undefined);
  for (const via of ["late", "stream", "failed"] as const) lines.record(lost("a", via), 1);
  lines.record(direct("a", 1), 2);
  assert.equal(lines.to("a", 2).packetLossPercent, 80);
  for (let i = 0; i < LOSS_WINDOW; i++) lines.record(direct("a", 1), 10 + i);
  assert.equal(lines.to("a", 100).packetLossPercent, 0);
  for (let i = 0; i < MIN_LOSS_SAMPLES; i++) lines.record(lost("a"), 200);
  assert.equal(lines.to("a", 200).packetLossPercent, 10);
  assert.equal(lines.to("a", 201 + LOSS_WINDOW_MS).packetLossPercent, undefined);
});

Deno.test("one bad peer of two is not held against a node, two are", () => {
  const lines = new LineQuality();
  for (let i = 0; i < 10; i++) {
    lines.record(direct("good", 1), i);
    lines.record(i % 2 ? direct("bad", 100) : lost("bad"), i);
  }
  assert.deepEqual(lines.overall(10), { latencyMs: 1, jitterMs: 0, packetLossPercent: 0 });
  lines.forget("good");
  assert.deepEqual(lines.overall(10), { latencyMs: 100, jitterMs: 0, packetLossPercent: 50 });
});

Deno.test("among many peers that were hardly probed loss is that of all probes", () => {
  const lines = new LineQuality();
  for (let i = 0; i < 100; i++) lines.record(i < 20 ? lost(`n${i}`) : direct(`n${i}`, 2), i);
  assert.deepEqual(lines.overall(100), { latencyMs: 2, packetLossPercent: 20 });
});

Deno.test("no more peers are remembered than the limit, the one probed last among them", () => {
  const lines = new LineQuality();
  for (let i = 0; i <= MAX_MEASURED_PEERS; i++) lines.record(direct(`n${i}`, 1), i);
  assert.equal(lines.size, MAX_MEASURED_PEERS);
  assert.deepEqual(lines.to("n0", 1), {});
  assert.equal(lines.to(`n${MAX_MEASURED_PEERS}`, 1).latencyMs, 1);
});
