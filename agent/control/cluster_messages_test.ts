import assert from "node:assert/strict";
import { ErrorResponseSchema } from "../../proto/gen/cluster/services/api/cluster_pb.ts";
import {
  cutText,
  decodeClusterMessage,
  encodeRefusal,
  MAX_ANSWER_BYTES,
  MAX_REFUSAL_BYTES,
  unwrap,
} from "./cluster_messages.ts";

Deno.test("a refusal fits an answer, however many reasons it has", () => {
  const refusal = encodeRefusal("Cannot admit it: " + "é".repeat(2_000), "n".repeat(128));
  assert.ok(refusal.length <= MAX_ANSWER_BYTES, `${refusal.length}`);
  const message = decodeClusterMessage(refusal);
  assert.ok(!(message instanceof Error));
  assert.match(unwrap(message, ErrorResponseSchema)!.error, /^Cannot admit it: é+…$/);
});

Deno.test("a text is cut between characters, and only where it is too long", () => {
  assert.equal(cutText("short", 5), "short");
  assert.equal(cutText("longer", 5), "lo…");
  assert.equal(cutText("éééé", 6), "é…");
  assert.equal(cutText("😀😀😀", 8), "😀…");
  for (let i = 0; i < 40; i++) {
    assert.ok(
      new TextEncoder().encode(cutText("a😀é".repeat(300), MAX_REFUSAL_BYTES - i)).length <=
        MAX_REFUSAL_BYTES - i,
    );
  }
});
