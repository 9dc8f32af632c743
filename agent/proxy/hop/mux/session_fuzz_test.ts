import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { type Random, seededRandom } from "../../../../gossip/random.ts";
import type { MuxStream } from "./stream.ts";
import { settled } from "./test_pipe.ts";
import { Worker } from "./test_session.ts";

const STREAMS = 12;
const MOST_BYTES = 700_000;
/** Far more than any of them takes. */
const MOST_STEPS = 50_000;

/** Tells by its bytes which stream and direction it is of, and where they stand. */
function content(random: Random, mark: number): Uint8Array {
  const bytes = new Uint8Array(random.int(random.float() < 0.5 ? 2_000 : MOST_BYTES));
  for (let at = 0; at < bytes.length; at++) bytes[at] = mark + at + (at >> 8) * 7 + (at >> 16) * 13;
  return bytes;
}

/** Somebody who now and then does something else. */
class Hesitation {
  readonly #waiting: (() => void)[] = [];

  constructor(private readonly random: Random) {}

  async pause(): Promise<void> {
    if (this.random.float() < 0.8) return;
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Lets some of them go on. */
  goOn(): void {
    const some = this.#waiting.splice(0, 1 + this.random.int(this.#waiting.length + 1));
    for (const resolve of some) resolve();
  }
}

async function writeInPieces(
  stream: MuxStream,
  bytes: Uint8Array,
  { random, hesitation }: Chance,
): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const most = random.float() < 0.5 ? 100 : 200_000;
    at += await stream.write(bytes.subarray(at, at + 1 + random.int(most)));
    await hesitation.pause();
  }
  await stream.closeWrite();
}

async function readInPieces(stream: MuxStream, { random, hesitation }: Chance): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for (;;) {
    const into = new Uint8Array(1 + random.int(random.float() < 0.5 ? 50_000 : 300_000));
    const count = await stream.read(into);
    if (count === null) return Buffer.concat(pieces);
    pieces.push(into.subarray(0, count));
    await hesitation.pause();
  }
}

interface Chance {
  random: Random;
  hesitation: Hesitation;
}

for (let seed = 1; seed <= 12; seed++) {
  Deno.test(`bytes of many streams arrive whole and in order, however they are cut and held up: ${seed}`, async () => {
    const random = seededRandom(seed);
    const chance = { random, hesitation: new Hesitation(random) };
    const worker = new Worker();
    const most = [7_000, 60_000, 1_000_000][seed % 3];
    const { conn, serverConn, dialler, server, accepted } = worker.pair({
      piece: () => 1 + random.int(most),
      capacityBytes: 1_000 + random.int(300_000),
    });
    const there = Array.from({ length: STREAMS }, (_, n) => content(random, n));
    const back = Array.from({ length: STREAMS }, (_, n) => content(random, 100 + n));
    let done = 0;
    const ask = async (n: number) => {
      const stream = dialler.open();
      const [read] = await Promise.all([
        readInPieces(stream, chance),
        writeInPieces(stream, there[n], chance),
      ]);
      assert.equal(Buffer.compare(read, back[n]), 0, `the answer to ${n}`);
      done++;
    };
    const serve = async (stream: MuxStream) => {
      const n = (stream.state.id - 1) / 2;
      const [read] = await Promise.all([
        readInPieces(stream, chance),
        writeInPieces(stream, back[n], chance),
      ]);
      assert.equal(Buffer.compare(read, there[n]), 0, `what ${n} sent`);
      done++;
    };
    const running = there.map((_, n) => ask(n));
    for (let step = 0, served = 0; done < 2 * STREAMS; step++) {
      assert.ok(step < MOST_STEPS, "they wait for ever");
      conn.isStalled = random.float() < 0.3;
      serverConn.isStalled = random.float() < 0.3;
      worker.time.nowMs += random.int(20);
      await settled();
      for (; served < accepted.length; served++) running.push(serve(accepted[served]));
      chance.hesitation.goOn();
    }
    await Promise.all(running);
    conn.isStalled = serverConn.isStalled = false;
    await settled();
    assert.deepEqual([dialler.streams, server.streams, accepted.length], [0, 0, STREAMS]);
    assert.deepEqual([dialler.failure, server.failure], [undefined, undefined]);
    await worker.end();
  });
}
