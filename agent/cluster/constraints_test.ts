import assert from "node:assert/strict";
import { brokenConstraint, parseConstraints } from "./constraints.ts";
import { MAX_CONSTRAINT_LENGTH, MAX_CONSTRAINTS, MAX_EXPRESSION_LENGTH } from "./limits.ts";

const facts = { id: "id-1", name: "alpha", tags: { zone: "west", arch: "arm64", empty: "" } };

const rows: [constraint: string, holds: boolean][] = [
  ["zone=west", true],
  ["zone = west", true],
  ["zone=east", false],
  ["zone!=east", true],
  ["zone!=west", false],
  ["absent!=x", true],
  ["absent=x", false],
  ["absent=", false],
  ["empty=", true],
  ["empty", true],
  ["zone", true],
  ["absent", false],
  ["zone=~^we", true],
  ["zone=~es", true],
  ["zone=~^(east|north)$", false],
  ["absent=~.*", false],
  ["node.name=alpha", true],
  ["node.name=~^al", true],
  ["node.id=id-1", true],
  ["node.arch=arm64", true],
  ["node.arch!=amd64", true],
  ["toString", false],
];

Deno.test("constraints hold or do not", () => {
  for (const [text, holds] of rows) {
    const broken = brokenConstraint(parseConstraints([text]), facts);
    assert.equal(broken, holds ? undefined : text, text);
  }
  assert.equal(brokenConstraint(parseConstraints(["zone=west", "absent", "zone=east"]), facts), "absent");
});

Deno.test("what is no constraint, and what is too long, is refused by name", () => {
  for (const text of ["", "=x", "!=x", "a b", "zone=~(", "a".repeat(MAX_CONSTRAINT_LENGTH + 1)]) {
    assert.throws(() => parseConstraints([text]), /^Error: Cannot read constraint "/, text);
  }
  assert.throws(() => parseConstraints([`zone=~${"a".repeat(MAX_EXPRESSION_LENGTH + 1)}`]), /longer than/);
  assert.throws(() => parseConstraints(Array(MAX_CONSTRAINTS + 1).fill("a=b")), /at most/);
});

Deno.test("an expression made to take for ever takes no time", () => {
  const [constraint] = parseConstraints(["zone=~^(a+)+$"]);
  assert.equal(constraint.holds({ ...facts, tags: { zone: `${"a".repeat(200)}b` } }), false);
});
