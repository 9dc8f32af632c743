import assert from "node:assert/strict";
import { KnownSources, MAX_KNOWN_SOURCES } from "./known_sources.ts";

Deno.test("rule 8: no more senders of packets are remembered than the limit, and each is who it is, remembered or not", () => {
  const sources = new KnownSources();
  const first = sources.endpoint("10.0.0.1", 1)!;
  assert.equal(sources.endpoint("10.0.0.1", 1), first);
  for (let n = 0; n < 2 * MAX_KNOWN_SOURCES + 5; n++) {
    const [hostname, port] = [`10.1.${n >> 8}.${n & 255}`, 1 + n];
    assert.equal(sources.endpoint(hostname, port)!.toString(), `${hostname}:${port}`);
    assert.ok(sources.size <= MAX_KNOWN_SOURCES);
  }
  const again = sources.endpoint("10.0.0.1", 1)!;
  assert.notEqual(again, first);
  assert.equal(again.toString(), "10.0.0.1:1");
  assert.equal(sources.endpoint("no address", 1), undefined);
});
