import assert from "node:assert/strict";
import { HttpError } from "../http_error.ts";
import { hopLine, parseHopField } from "./hop_field.ts";

Deno.test("a hop field carries id, host port, client address and scheme", () => {
  for (const clientAddress of ["203.0.113.7", "::1", "fe80::1%eth0"]) {
    const facts = { id: "0a1b", port: 443, clientAddress, scheme: "https" as const };
    const line = hopLine(facts);
    assert.equal(line, `Hypercore-Hop: 0a1b 443 ${clientAddress} https\r\n`);
    assert.deepEqual(parseHopField(line.slice("Hypercore-Hop: ".length, -2)), facts);
  }
});

for (
  const bad of [
    "",
    "app",
    "app 443 1.2.3.4",
    "app 443 1.2.3.4 ftp",
    "app 443 1.2.3.4 http x",
    "app 0 1.2.3.4 http",
    "app 65536 1.2.3.4 http",
    "app 4e3 1.2.3.4 http",
    "app 443 localhost http",
    'app 443 1.2.3.4",x http',
    " 443 1.2.3.4 http",
    "app  443 1.2.3.4 http",
    `${"a".repeat(256)} 443 1.2.3.4 http`,
  ]
) {
  Deno.test(`a hop field is refused: ${JSON.stringify(bad.slice(0, 30))}`, () => {
    assert.throws(() => parseHopField(bad), (error) => error instanceof HttpError && error.status === 400);
  });
}
