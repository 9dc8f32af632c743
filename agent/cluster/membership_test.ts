import assert from "node:assert/strict";
import { core, member, START_MS } from "./testing.ts";

Deno.test("of two members with one id the one that is there counts, in whatever order they come", () => {
  const gone = member("b", { name: "old-b", status: "failed" });
  const here = member("b", { name: "new-b" });
  for (const members of [[gone, here], [here, gone]]) {
    const a = core("a");
    const effects = a.members(START_MS, members);
    assert.deepEqual(a.nodes().map(({ name, life }) => [name, life]), [["name-a", "live"], [
      "new-b",
      "live",
    ]]);
    assert.ok(!effects.some(({ kind }) => kind === "note"));
  }
});

Deno.test("of two living members with one id the lower name counts, and that is said", () => {
  const [first, second] = [member("b", { name: "b1" }), member("b", { name: "b2" })];
  for (const members of [[first, second], [second, first]]) {
    const a = core("a");
    const notes = a.members(START_MS, members).filter((effect) => effect.kind === "note");
    assert.equal(a.nodes()[1].name, "b1");
    assert.deepEqual(notes.map(({ text }) => text), [
      'Cannot tell "b2" from another member: both have this node id',
    ]);
  }
});

Deno.test("members that are given again as they were change nothing, however they were seen to live meanwhile", () => {
  const a = core("a");
  const [b, c] = [member("b"), member("c")];
  a.members(START_MS, [b, c]);
  a.members(START_MS + 1, [{ ...b, status: "failed" }, c]);
  assert.equal(a.nodes()[1].life, "failed");
  a.members(START_MS + 2, [b, c]);
  assert.deepEqual(a.nodes().map(({ life }) => life), ["live", "live", "live"]);
  assert.deepEqual(a.members(START_MS + 3, [b, c]), []);
});

Deno.test("of many members the one that changed is seen, and one that takes another's place", () => {
  const a = core("a");
  const members = Array.from({ length: 20 }, (_, i) => member(`n${i}`));
  const lives = () => new Map(a.nodes().map(({ id, life }) => [id, life]));
  a.members(START_MS, members);
  a.members(START_MS + 1, members.with(7, { ...members[7], status: "failed" }));
  assert.deepEqual([lives().get("n6"), lives().get("n7"), lives().get("n8")], ["live", "failed", "live"]);
  a.members(START_MS + 2, members.with(7, member("other")));
  assert.deepEqual([lives().get("n7"), lives().get("other"), lives().size], [undefined, "live", 21]);
  a.members(START_MS + 3, members.slice(0, 7));
  assert.deepEqual([...lives().keys()], ["a", "n0", "n1", "n2", "n3", "n4", "n5", "n6"]);
});

Deno.test("two members with one id are told apart also when the others stay as they were", () => {
  const a = core("a");
  const [first, second] = [member("b", { name: "b1" }), member("b", { name: "b2" })];
  a.members(START_MS, [first, second, member("c")]);
  a.members(START_MS + 1, [first, { ...second, status: "failed" }, member("c")]);
  assert.deepEqual(a.nodes().map(({ name, life }) => [name, life])[1], ["b1", "live"]);
});
