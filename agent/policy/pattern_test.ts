import assert from "node:assert/strict";
import { glob, pathGlob } from "./pattern.ts";

Deno.test("a star stands for any text, in a path for any text without a slash, two stars for any", () => {
  const rows: [typeof glob, string, string[], string[]][] = [
    [glob, "a*c", ["ac", "abc", "a/c", "abcbc"], ["", "a", "abcd", "xac"]],
    [glob, "*", ["", "x", "a/b"], []],
    [glob, "a.c", ["a.c"], ["abc"]],
    [glob, "*.eu.*", ["n1.eu.x"], ["neux", "n1.eu"]],
    [glob, "a\\*[x]", ["a\\[x]", "a\\yy[x]"], ["a*x"]],
    [pathGlob, "a/*/c", ["a/b/c", "a//c"], ["a/b/b/c", "a/c"]],
    [pathGlob, "a/**", ["a/", "a/b/c"], ["a", "b/a/"]],
    [pathGlob, "**/c", ["a/b/c", "/c"], ["c", "a/cc"]],
    [pathGlob, "a*", ["a", "ab"], ["a/b"]],
  ];
  for (const [compile, pattern, yes, no] of rows) {
    const match = compile(pattern);
    for (const text of yes) assert.equal(match(text), true, `${pattern} takes ${text}`);
    for (const text of no) assert.equal(match(text), false, `${pattern} does not take ${text}`);
  }
});

Deno.test("no pattern takes long, whatever the text", () => {
  const match = glob("*a".repeat(120));
  // Backtracking would need longer than the universe.
  assert.equal(match(`${"a".repeat(400)}b`), false);
  assert.equal(match("a".repeat(400)), true);
});
