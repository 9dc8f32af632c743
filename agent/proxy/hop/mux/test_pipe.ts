import { setImmediate } from "node:timers";
import type { Conn } from "../../conn.ts";

/** Bytes on their way before the sender has to wait. */
const CAPACITY_BYTES = 64 * 1024;

/** How a {@linkcode pipe} carries. */
export interface PipeOptions {
  /** Bytes that the next read brings, or the next write takes, at most. */
  piece?: () => number;
  capacityBytes?: number;
}

/** Both ends of a connection in memory; what one writes the other reads. */
export function pipe(options: PipeOptions = {}): [PipeEnd, PipeEnd] {
  const wires = [new Wire(options), new Wire(options)];
  return [new PipeEnd(wires[0], wires[1]), new PipeEnd(wires[1], wires[0])];
}

/** Until all that can go on has gone on. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

interface Waiting {
  bytes: Uint8Array;
  result: PromiseWithResolvers<number | null>;
}

/** One direction. */
class Wire {
  /** What is on its way is `#held[#start, #end)`. */
  readonly #held: Uint8Array;
  #start = 0;
  #end = 0;
  #reader?: Waiting;
  #writer?: Waiting;
  #isStalled = false;
  #isEnded = false;
  /** Calls of `write`. */
  writes = 0;

  readonly #piece: () => number;

  constructor({ piece = () => Infinity, capacityBytes = CAPACITY_BYTES }: PipeOptions) {
    this.#held = new Uint8Array(capacityBytes);
    this.#piece = piece;
  }

  /** While it is stalled nothing arrives. */
  set isStalled(isStalled: boolean) {
    this.#isStalled = isStalled;
    this.#move();
  }

  read(into: Uint8Array): Promise<number | null> {
    const result = Promise.withResolvers<number | null>();
    this.#reader = { bytes: into, result };
    this.#move();
    return result.promise;
  }

  write(bytes: Uint8Array): Promise<number> {
    this.writes++;
    if (this.#isEnded) return Promise.reject(new Deno.errors.BrokenPipe("nobody reads"));
    const result = Promise.withResolvers<number | null>();
    this.#writer = { bytes, result };
    this.#move();
    return result.promise as Promise<number>;
  }

  end(): void {
    this.#isEnded = true;
    this.#move();
  }

  failReader(error: Error): void {
    this.#reader?.result.reject(error);
    this.#reader = undefined;
  }

  failWriter(error: Error): void {
    this.#writer?.result.reject(error);
    this.#writer = undefined;
  }

  #move(): void {
    while (this.#take() || this.#bring());
    if (!this.#reader || this.#isStalled || !this.#isEnded) return;
    this.#reader.result.resolve(null);
    this.#reader = undefined;
  }

  #take(): boolean {
    if (!this.#writer) return false;
    if (this.#start > 0) {
      this.#held.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    const { bytes, result } = this.#writer;
    const count = Math.min(bytes.length, this.#held.length - this.#end, this.#piece());
    if (count === 0) return false;
    this.#held.set(bytes.subarray(0, count), this.#end);
    this.#end += count;
    this.#writer = undefined;
    result.resolve(count);
    return true;
  }

  #bring(): boolean {
    if (!this.#reader || this.#isStalled || this.#start === this.#end) return false;
    const { bytes, result } = this.#reader;
    const count = Math.min(bytes.length, this.#end - this.#start, this.#piece());
    bytes.set(this.#held.subarray(this.#start, this.#start + count));
    this.#start += count;
    this.#reader = undefined;
    result.resolve(count);
    return true;
  }
}

/** One end: a `Conn` that can be held up. */
export class PipeEnd implements Conn {
  isClosed = false;

  constructor(private readonly out: Wire, private readonly into: Wire) {}

  /** Nothing of what this end sends arrives while it is. */
  set isStalled(isStalled: boolean) {
    this.out.isStalled = isStalled;
  }

  /** How often something was written. */
  get writes(): number {
    return this.out.writes;
  }

  read(into: Uint8Array): Promise<number | null> {
    return this.isClosed ? Promise.reject(closedError()) : this.into.read(into);
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.isClosed ? Promise.reject(closedError()) : this.out.write(bytes);
  }

  closeWrite(): Promise<void> {
    this.out.end();
    return Promise.resolve();
  }

  close(): void {
    if (this.isClosed) throw closedError();
    this.isClosed = true;
    this.into.failReader(closedError());
    this.into.end();
    this.into.failWriter(new Deno.errors.ConnectionReset("the other end has been closed"));
    this.out.failWriter(closedError());
    this.out.end();
  }
}

function closedError(): Error {
  return new Deno.errors.BadResource("closed");
}
