import { DecodeError } from "../codec/error.ts";
import type { StreamMessage, StreamReader } from "../codec/stream.ts";
import type { Endpoint } from "../endpoint.ts";
import type { ByteStream, Transport } from "./transport.ts";

/** Streams served at once; more are closed unanswered. */
export const MAX_SERVED_STREAMS = 191;
/** The same from one IP address: a stranger that holds them leaves the others their places. */
export const MAX_SERVED_STREAMS_PER_ADDRESS = 63;
/** The same from one IPv6 /64. It may be a stranger's, or a LAN's, which has as many then as a node of Serf's serves in all. */
export const MAX_SERVED_STREAMS_PER_NETWORK = 127;
/** Bytes of unfinished messages of all served streams; a stream that exceeds them is closed. */
export const MAX_RECEIVING_BYTES = 128 * 1024 * 1024;
const READ_BYTES = 64 * 1024;

/** Opens a stream, writes, and reads one message where a reader is given. Throws where anything fails. */
export async function exchange(
  transport: Transport,
  to: Endpoint,
  options: { request: Uint8Array; reader?: StreamReader; signal: AbortSignal },
): Promise<StreamMessage | undefined> {
  const { signal } = options;
  const stream = await transport.dial(to, signal);
  using _closing = closeOnAbort(stream, signal);
  await writeAll(stream, options.request);
  if (options.reader === undefined) return undefined;
  return await readMessage(stream, options.reader);
}

/**
 * Reads until the reader has its message. Throws {@linkcode DecodeError} on bad bytes or where they end,
 * {@linkcode BudgetError} where the budget is used up.
 */
export async function readMessage(
  stream: ByteStream,
  reader: StreamReader,
  budget?: ByteBudget,
): Promise<StreamMessage> {
  const buffer = new Uint8Array(READ_BYTES);
  let taken = 0;
  try {
    for (;;) {
      const length = await stream.read(buffer);
      if (length === null) throw new DecodeError("stream", "it ended early", { incomplete: true });
      budget?.take(length);
      taken += length;
      const message = reader.push(buffer.subarray(0, length));
      if (message !== undefined) return message;
    }
  } finally {
    budget?.give(taken);
  }
}

/** A stream that would take more than all of them together may hold. */
export class BudgetError extends Error {
  override readonly name = "BudgetError";
}

/** What all served streams together may hold before their messages are complete: who sends may be a stranger. */
export class ByteBudget {
  #left: number;

  constructor(readonly limit: number = MAX_RECEIVING_BYTES) {
    this.#left = limit;
  }

  /** Throws {@linkcode BudgetError} where too much is under way. */
  take(bytes: number): void {
    this.#left -= bytes;
    if (this.#left >= 0) return;
    this.#left += bytes;
    throw new BudgetError(`Cannot receive stream: streams of ${this.limit} bytes are under way`);
  }

  give(bytes: number): void {
    this.#left += bytes;
  }
}

/** Writes all of `bytes`. */
export async function writeAll(stream: ByteStream, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await stream.write(bytes.subarray(at));
}

/** Closes the stream when the signal aborts, or when disposed of. */
export function closeOnAbort(stream: ByteStream, signal: AbortSignal): Disposable {
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    signal.removeEventListener("abort", close);
    stream.close();
  };
  if (signal.aborted) close();
  else signal.addEventListener("abort", close);
  return { [Symbol.dispose]: close };
}
