import assert from "node:assert/strict";
import { type FrameHeader, HEADER_BYTES, MuxProtocolError, readHeader, writeHeader } from "./frames.ts";

const NOTHING: FrameHeader = { type: 0, flags: 0, streamId: 0, length: 0 };

Deno.test("a header is version, type, flags, stream and length in twelve bytes, big-endian, and nothing around it is touched", () => {
  const bytes = new Uint8Array(HEADER_BYTES + 2).fill(0xee);
  const header = { type: 1, flags: 0x0102, streamId: 0x03040506, length: 0xfff0e0d0 };
  writeHeader(new DataView(bytes.buffer), 1, header);
  assert.deepEqual([...bytes], [0xee, 0, 1, 1, 2, 3, 4, 5, 6, 0xff, 0xf0, 0xe0, 0xd0, 0xee]);
  const read = { ...NOTHING };
  readHeader(new DataView(bytes.buffer), 1, read);
  assert.deepEqual(read, header);
});

Deno.test("a header of another version or an unknown type is refused by name, and what was read before stays", () => {
  const refusal = (version: number, type: number) => () => {
    const into = { ...NOTHING, streamId: 7 };
    try {
      readHeader(new DataView(Uint8Array.of(version, type, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0).buffer), 0, into);
    } finally {
      assert.equal(into.streamId, version === 0 && type < 4 ? 1 : 7);
    }
  };
  for (const type of [0, 1, 2, 3]) refusal(0, type)();
  for (const [version, type] of [[0, 4], [0, 255], [1, 0], [255, 3]]) {
    assert.throws(refusal(version, type), (error) => {
      assert.ok(error instanceof MuxProtocolError);
      assert.match(error.message, new RegExp(`version ${version} and type ${type}$`));
      return true;
    });
  }
});
