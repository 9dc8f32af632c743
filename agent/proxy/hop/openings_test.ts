import assert from "node:assert/strict";
import { Openings } from "./openings.ts";

Deno.test("of too many that have not proved themselves the oldest of the address with the most gives way", () => {
  const openings = new Openings(4);
  const closed: string[] = [];
  const add = (address: string, name: string) => openings.add(address, () => closed.push(name));
  const member = add("10.0.0.1", "member");
  for (const name of ["s1", "s2", "s3", "s4", "s5"]) add("10.0.0.9", name);
  assert.deepEqual(closed, ["s1", "s2"]);
  assert.equal(openings.size, 4);
  member();
  assert.equal(openings.size, 3);
  add("10.0.0.2", "other");
  assert.deepEqual(closed, ["s1", "s2"]);
});

Deno.test("one that gave way or is done counts no more, however often it says so", () => {
  const openings = new Openings(1);
  let closed = 0;
  const first = openings.add("a", () => closed++);
  const second = openings.add("b", () => closed++);
  assert.equal(closed, 1);
  first();
  assert.equal(openings.size, 1);
  second();
  second();
  assert.equal(openings.size, 0);
});
