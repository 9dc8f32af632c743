import assert from "node:assert/strict";
import { RequestBody } from "./http2_body.ts";

Deno.test("a body whose end came while the thread was held up is empty, one that says nothing is not", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  for (const ends of [true, false]) {
    using client = await Deno.connect({ hostname: "127.0.0.1", port });
    const conn = await listener.accept();
    const body = new RequestBody(conn.readable);
    const isEmpty = body.isEmpty(2);
    if (ends) await client.closeWrite();
    for (const until = performance.now() + 20; performance.now() < until;);
    assert.equal(await isEmpty, ends);
    if (!ends) await client.closeWrite();
    assert.equal(await body.read(), undefined);
  }
});
