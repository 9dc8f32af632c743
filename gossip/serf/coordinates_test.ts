import assert from "node:assert/strict";
import vectors from "../testdata/vectors.json" with { type: "json" };
import { seededRandom } from "../random.ts";
import type { Coordinate } from "../codec/coordinate.ts";
import { CoordinateClient, distanceS } from "./coordinates.ts";

interface Json {
  Vec: number[];
  Error: number;
  Adjustment: number;
  Height: number;
}

function fromJson(json: Json): Coordinate {
  return { vec: json.Vec, error: json.Error, adjustment: json.Adjustment, height: json.Height };
}

function close(actual: number, expected: number, what: string): void {
  assert.ok(Math.abs(actual - expected) <= 1e-12, `${what}: ${actual} is not ${expected}`);
}

Deno.test("coordinates follow the captured Vivaldi sequence", () => {
  // deno-lint-ignore no-explicit-any
  const decoded = vectors.find((vector) => vector.name === "vivaldi")!.decoded as any;
  const other = fromJson(decoded.other);
  const client = new CoordinateClient(seededRandom(1));
  for (const [i, step] of decoded.steps.entries()) {
    assert.ok(client.update("n1", other, step.rtt_ms / 1000));
    const after = fromJson(step.after);
    after.vec.forEach((component, j) => close(client.own.vec[j], component, `step ${i} vec ${j}`));
    close(client.own.error, after.error, `step ${i} error`);
    close(client.own.height, after.height, `step ${i} height`);
    close(client.own.adjustment, after.adjustment, `step ${i} adjustment`);
    close(distanceS(client.own, other), step.distance_ns / 1e9, `step ${i} distance`);
  }
});

Deno.test("coordinates refuse nonsense and stay as they are", () => {
  const client = new CoordinateClient(seededRandom(1));
  const before = client.own;
  const other = { vec: new Array(8).fill(0), error: 1, adjustment: 0, height: 0.001 };
  assert.equal(client.update("a", { ...other, vec: [1, 2] }, 0.01), false);
  assert.equal(client.update("a", { ...other, height: NaN }, 0.01), false);
  assert.equal(client.update("a", other, -1), false);
  assert.equal(client.update("a", other, 11), false);
  assert.equal(client.own, before);
});
