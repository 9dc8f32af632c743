import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { seededRandom } from "../../../../gossip/random.ts";
import { SMALL_BUFFER_BYTES } from "../../buffers.ts";
import { ByteQueue } from "./byte_queue.ts";
import { OwnedPool } from "./test_session.ts";

/** From anywhere in it on, what comes tells where it is. */
const PATTERN = Uint8Array.from({ length: 251 * 1_000 }, (_, at) => at % 251);

/** So many bytes behind the first `at` ones. */
function patternAt(at: number, bytes: number): Uint8Array {
  return PATTERN.subarray(at % 251, at % 251 + bytes);
}

Deno.test("bytes come out as they went in, however they are cut, and in as few buffers as hold them", () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = seededRandom(seed);
    const pool = new OwnedPool();
    const queue = new ByteQueue(pool);
    const most = random.float() < 0.5 ? 100 : 3 * SMALL_BUFFER_BYTES;
    let pushed = 0, shifted = 0;
    for (let step = 0; step < 300; step++) {
      const size = random.int(most);
      if (random.float() < 0.5) {
        queue.push(patternAt(pushed, size));
        pushed += size;
      } else {
        const into = new Uint8Array(size);
        const count = queue.shift(into);
        assert.equal(count, Math.min(size, pushed - shifted));
        assert.ok(Buffer.compare(into.subarray(0, count), patternAt(shifted, count)) === 0, `seed ${seed}`);
        shifted += count;
      }
      assert.equal(queue.length, pushed - shifted);
      assert.ok(pool.taken.size <= Math.ceil(queue.length / SMALL_BUFFER_BYTES) + 1);
      if (queue.length === 0) assert.equal(pool.taken.size, 0, `seed ${seed}`);
    }
    queue.clear();
    assert.deepEqual([queue.length, pool.taken.size, queue.shift(new Uint8Array(1))], [0, 0, 0]);
  }
});

Deno.test("many tiny pieces take no more than one buffer, also while they are read", () => {
  const pool = new OwnedPool();
  const queue = new ByteQueue(pool);
  for (let n = 0; n < 1_000; n++) queue.push(Uint8Array.of(n));
  assert.equal(pool.taken.size, 1);
  queue.shift(new Uint8Array(999));
  assert.deepEqual([queue.length, pool.taken.size], [1, 1]);
  queue.shift(new Uint8Array(9));
  assert.deepEqual([queue.length, pool.taken.size], [0, 0]);
});

Deno.test("a queue that was cleared takes bytes as a new one", () => {
  const pool = new OwnedPool();
  const queue = new ByteQueue(pool);
  queue.push(new Uint8Array(2 * SMALL_BUFFER_BYTES + 5));
  queue.shift(new Uint8Array(SMALL_BUFFER_BYTES + 7));
  queue.clear();
  queue.push(Uint8Array.of(1, 2, 3));
  const into = new Uint8Array(5);
  assert.deepEqual([queue.shift(into), [...into], pool.taken.size], [3, [1, 2, 3, 0, 0], 0]);
});
