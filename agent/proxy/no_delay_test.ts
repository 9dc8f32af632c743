import assert from "node:assert/strict";
import { setNoDelayOnListeners } from "./no_delay.ts";
import { freePort } from "./test_support.ts";

const IPPROTO_TCP = 6, TCP_NODELAY = 1;

/** TCP_NODELAY of each of this process's sockets that `before` did not have. */
function noDelays(before: ReadonlySet<string>): number[] {
  using library = (() => {
    const opened = Deno.dlopen("libc.so.6", {
      getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
    });
    return { symbols: opened.symbols, [Symbol.dispose]: () => opened.close() };
  })();
  return [...sockets()].filter((fd) => !before.has(fd)).map((fd) => {
    const value = new Int32Array(1), length = new Int32Array([4]);
    const raw = (array: Int32Array<ArrayBuffer>) => new Uint8Array(array.buffer);
    const result = library.symbols.getsockopt(Number(fd), IPPROTO_TCP, TCP_NODELAY, raw(value), raw(length));
    return result === 0 ? value[0] : -1;
  });
}

function sockets(): Set<string> {
  const found = new Set<string>();
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      if (Deno.readLinkSync(`/proc/self/fd/${name}`).startsWith("socket:")) found.add(name);
    } catch {
      // Closed meanwhile: that of the directory itself.
    }
  }
  return found;
}

for (const hostname of ["127.0.0.1", "::1"]) {
  Deno.test(`connections accepted on ${hostname} inherit TCP_NODELAY from their listener`, async () => {
    using listener = Deno.listen({ hostname, port: 0 });
    const { port } = listener.addr;
    for (const isSet of [false, true]) {
      if (isSet) setNoDelayOnListeners(port);
      const before = sockets();
      using _client = await Deno.connect({ hostname, port });
      using _accepted = await listener.accept();
      // Of the client, and of the accepted connection.
      assert.deepEqual(noDelays(before).toSorted(), isSet ? [0, 1] : [0, 0]);
    }
  });
}

Deno.test("a port on which this process does not listen is an error that names it", () => {
  const port = freePort();
  assert.throws(() => setNoDelayOnListeners(port), new RegExp(`Cannot find the listeners of port "${port}"`));
});
