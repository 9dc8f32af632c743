import assert from "node:assert/strict";
import { memoryIdentity } from "../beacon/testing.ts";
import { signBody } from "./entry.ts";
import { entryLine } from "./entry.ts";
import { exportText, MAX_EXPORT_BYTES, parseExport } from "./export.ts";
import { firstBody, followingBody, TEST_SPEC } from "./testing.ts";
import { verifyLines } from "./verifier.ts";

const workload = "00000000000a";

/** What an offline check of a file says. */
function verdictOf(bytes: Uint8Array): string {
  const read = parseExport(bytes);
  if ("reason" in read) return "INVALID";
  return verifyLines(read.lines, { claim: read.claim, workload: read.workload }).result;
}

Deno.test("an exported file verifies by itself, across a rotation; any byte changed, it does not", async () => {
  const identity = memoryIdentity();
  const first = { ...signBody(firstBody(identity.nodeId), identity), spec: TEST_SPEC };
  await identity.rotate(1);
  const second = signBody(followingBody(first), identity);
  const text = exportText({ claim: identity, workload, lines: [first, second].map(entryLine) });
  const bytes = new TextEncoder().encode(text);
  assert.equal(verdictOf(bytes), "VALID");
  for (let i = 0; i < bytes.length; i++) {
    const bit = 1 << (i % 8);
    bytes[i] ^= bit;
    assert.notEqual(verdictOf(bytes), "VALID", `byte ${i}`);
    bytes[i] ^= bit;
  }
  for (let end = 0; end < bytes.length; end += 7) {
    // Cut off behind a whole line it is a shorter history, which is why the newest hash is known elsewhere.
    if (bytes[end - 1] !== 0x0a) assert.notEqual(verdictOf(bytes.subarray(0, end)), "VALID", `cut at ${end}`);
  }
  assert.equal(verdictOf(bytes), "VALID");
});

Deno.test("what is no exported file is refused with the reason", () => {
  const reason = (text: string | Uint8Array) => {
    const read = parseExport(typeof text === "string" ? new TextEncoder().encode(text) : text);
    return "reason" in read ? read.reason : "accepted";
  };
  assert.match(reason(""), /cut off/);
  assert.match(reason("x\n"), /not JSON/);
  assert.match(reason("null\n"), /no object/);
  assert.match(reason('{"format":"other"}\n'), /format is not/);
  assert.match(reason('{"format":"hypercore-proof/1"}\n'), /missing or too many/);
  assert.match(reason(new Uint8Array([0xff, 0x0a])), /no text/);
  assert.match(reason(new Uint8Array(MAX_EXPORT_BYTES + 1)), /larger than/);
});
