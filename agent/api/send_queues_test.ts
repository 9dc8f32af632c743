import assert from "node:assert/strict";
import net from "node:net";
import { readSendQueues } from "./send_queues.ts";

/** More than the buffers of both sockets hold. */
const BYTES = 32 << 20;

for (const [host, hostname] of [["127.0.0.1", "127.0.0.1"], ["::1", "::1"], ["::", "127.0.0.1"]]) {
  Deno.test(`the kernel tells what it holds for ${hostname} of a listener on ${host}, and less when that reads`, async () => {
    const accepted = Promise.withResolvers<net.Socket>();
    const server = net.createServer((socket) => accepted.resolve(socket.on("error", () => {})));
    server.listen(0, host);
    await new Promise((resolve) => server.once("listening", resolve));
    const { port } = server.address() as net.AddressInfo;
    {
      using conn = await Deno.connect({ hostname, port });
      const socket = await accepted.promise;
      const held = async () => (await readSendQueues())(socket);
      assert.equal(await held(), 0);
      socket.write(new Uint8Array(BYTES));
      while (await held() === 0);
      const all = new Uint8Array(1 << 20);
      for (let read = 0; read < BYTES;) read += (await conn.read(all))!;
      while (await held() !== 0); // as soon as that is acknowledged
      socket.destroy();
      assert.equal(await held(), undefined);
    }
    await new Promise((resolve) => server.close(resolve));
  });
}
