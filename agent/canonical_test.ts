import assert from "node:assert/strict";
import {
  canonicalBytes,
  canonicalJson,
  type CanonicalValue,
  MAX_CANONICAL_DEPTH,
  parseCanonical,
} from "./canonical.ts";

Deno.test("canonical JSON is RFC 8785: keys by UTF-16 unit, least escapes, no white space", () => {
  assert.equal(
    canonicalJson({ b: [1, "é\n", null], a: true, "€": -2 }),
    '{"a":true,"b":[1,"é\\n",null],"€":-2}',
  );
  assert.deepEqual(canonicalBytes("é"), new Uint8Array([0x22, 0xc3, 0xa9, 0x22]));
});

Deno.test("what has no form that every program writes alike is not written", () => {
  let deep: CanonicalValue = 1;
  for (let i = 0; i <= MAX_CANONICAL_DEPTH; i++) deep = [deep];
  for (
    const value of [
      0.5,
      -0,
      NaN,
      2 ** 53,
      "\ud800",
      { "\udc00": 1 },
      undefined,
      { a: undefined },
      new Date(0),
      deep,
    ]
  ) {
    assert.throws(() => canonicalJson(value as CanonicalValue), /Cannot write canonical JSON/);
  }
  canonicalJson((deep as CanonicalValue[])[0]);
});

Deno.test("only canonical text is read: every other byte for the same value is refused", () => {
  assert.deepEqual(parseCanonical('{"a":1,"b":"x"}'), { value: { a: 1, b: "x" } });
  for (
    const text of [
      '{"b":"x","a":1}',
      '{"a": 1,"b":"x"}',
      '{"a":1,"a":1}',
      '{"a":1.0}',
      '{"a":1e0}',
      '{"a":-0}',
      '{"a":9007199254740993}',
      '{"a":"\\u0062"}',
      '{"a":"\\ud800"}',
      '{"__proto__":{}}x',
      "{",
      "",
      " 1",
      "[".repeat(100) + "]".repeat(100),
    ]
  ) {
    assert("reason" in parseCanonical(text), text);
  }
});
