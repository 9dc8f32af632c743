import assert from "node:assert/strict";
import { Re2 } from "./match.ts";
import { RegExpError } from "./parse.ts";

const CASES: [expr: string, text: string, matches: boolean][] = [
  ["", "", true],
  ["fake.*", "a fake thing", true],
  ["^web$", "web", true],
  ["^web$", "webs", false],
  ["web|db", "my-db", true],
  ["^(?:a|b)+c{2,3}$", "ababcc", true],
  ["^(?:a|b)+c{2,3}$", "ababc", false],
  ["^(?:a|b)+c{2,3}$", "ababcccc", false],
  ["(?i)WEB", "wEb", true],
  ["(?i:w)EB", "wEB", true],
  ["(?i:w)EB", "weB", false],
  ["^[a-c0-9_]+$", "abc_09", true],
  ["^[^a-c]$", "b", false],
  ["[[:digit:]]{3}", "ab123", true],
  ["^[]a]$", "]", true],
  ["^\\d\\w\\s$", "1a ", true],
  ["\\bfoo\\b", "a foo b", true],
  ["\\bfoo\\b", "afoo", false],
  ["\\Afoo\\z", "foo", true],
  ["(?P<x>a)b", "ab", true],
  ["\\x41\\x{1F600}", "A\u{1F600}", true],
  ["a{,2}", "a{,2}", true],
  ["\\Q.*\\E", ".*", true],
  ["\\Q.*\\E", "ab", false],
  ["a.c", "a\nc", false],
  ["(?s)a.c", "a\nc", true],
  ["(?m)^b$", "a\nb\nc", true],
  ["(a*)*$", "aaa", true],
  ["x*", "", true],
];

Deno.test("re2 matches as Go does", () => {
  for (const [expr, text, matches] of CASES) {
    assert.equal(new Re2(expr).test(text), matches, `${expr} on ${text}`);
  }
});

Deno.test("re2 refuses what RE2 refuses, and what is too large", () => {
  for (
    const expr of [
      "(",
      ")",
      "[",
      "*",
      "a**",
      "(?=a)",
      "\\1",
      "a{2000}",
      "((a{100}){100}){100}",
      "[z-a]",
      "\\",
    ]
  ) {
    assert.throws(() => new Re2(expr), RegExpError, expr);
  }
  assert.throws(() => new Re2("(".repeat(1000) + "a" + ")".repeat(1000)), RegExpError);
});

Deno.test("re2 takes linear time on an expression that makes backtracking explode", () => {
  assert.equal(new Re2("^(a+)+$").test("a".repeat(500) + "b"), false);
  assert.equal(new Re2("(x+x+)+y").test("x".repeat(500)), false);
});
