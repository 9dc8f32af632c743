import assert from "node:assert/strict";
import { openCLibrary } from "./c_library.ts";
import { setNoDelayOnListeners } from "./no_delay.ts";
import { freePort } from "../../tests/support/free_port.ts";
import { socketsOf } from "./test_support.ts";

const IPPROTO_TCP = 6, TCP_NODELAY = 1;

/** TCP_NODELAY of these sockets. */
function noDelays(fds: readonly number[]): number[] {
  const library = openCLibrary({
    getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  });
  try {
    return fds.map((fd) => {
      const value = new Int32Array(1), length = new Int32Array([4]);
      const raw = (array: Int32Array<ArrayBuffer>) => new Uint8Array(array.buffer);
      const result = library.symbols.getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, raw(value), raw(length));
      return result === 0 ? value[0] : -1;
    });
  } finally {
    library.close();
  }
}

for (const hostname of ["127.0.0.1", "::1"]) {
  Deno.test(`connections accepted on ${hostname} inherit TCP_NODELAY from their listener`, async () => {
    using listener = Deno.listen({ hostname, port: 0 });
    const { port } = listener.addr;
    for (const isSet of [false, true]) {
      if (isSet) setNoDelayOnListeners(port);
      using _client = await Deno.connect({ hostname, port });
      using _accepted = await listener.accept();
      const { accepted, opened } = socketsOf(port);
      assert.deepEqual(noDelays(opened), [0]);
      assert.deepEqual(noDelays(accepted), [isSet ? 1 : 0]);
    }
  });
}

Deno.test("a port on which this process does not listen is an error that names it", () => {
  const port = freePort();
  assert.throws(() => setNoDelayOnListeners(port), new RegExp(`Cannot find the listeners of port "${port}"`));
});
