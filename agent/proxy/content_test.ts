import assert from "node:assert/strict";
import { BufferPool } from "./buffers.ts";
import { moveContent } from "./content.ts";
import { DEFAULT_LIMITS } from "./limits.ts";
import { Source } from "./source.ts";

const RECORD_BYTES = 16 * 1024;

Deno.test("the rest of a body whose first record came with its head goes out with that", async () => {
  const body = new Uint8Array(20_000).map((_, i) => i);
  const records = [body.subarray(0, RECORD_BYTES), body.subarray(RECORD_BYTES)];
  const conn = {
    handshake: () => Promise.resolve({}),
    read(into: Uint8Array): Promise<number | null> {
      const record = records.shift();
      if (record !== undefined) into.set(record);
      return Promise.resolve(record?.length ?? null);
    },
  } as unknown as Deno.TlsConn;
  const source = new Source(conn, new BufferPool());
  await source.fill();
  const written: Uint8Array[] = [];
  const sink = {
    write: (bytes: Uint8Array) => void written.push(bytes.slice()),
    flush: () => undefined,
  };
  const options = { limits: DEFAULT_LIMITS, raw: true, maxBytes: Infinity, onProgress() {} };
  await moveContent(source, { kind: "length", bytes: body.length }, sink, options);
  assert.deepEqual(written, [body]);
});
