import { createHash } from "node:crypto";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  WriteAction,
  WriteContentRequestSchema,
  type WriteContentResponse,
} from "../../proto/gen/containerd/services/content/v1/content_pb.ts";
import { type ContainerdClient, inLease, NO_TIMEOUT } from "../containerd/client.ts";
import { isNotFound } from "../containerd/errors.ts";
import { RuntimeError } from "../errors.ts";
import type { Wait } from "./retry.ts";

/** Bytes per WRITE; containerd takes messages up to 16 MiB. */
const WRITE_BYTES = 1 << 20;
/** How often, and how many times, a blob that another client is writing is asked for again. */
const LOCKED_RETRY_MS = 500;
const MAX_LOCKED_RETRIES = 600;

export interface IngestOptions {
  client: ContainerdClient;
  leaseId: string;
  /** Key of the ingest; two with the same key exclude each other. */
  ref: string;
  /** Bytes to come. */
  size: number;
  /** Checked by containerd over all bytes; absent: whatever it turns out to be. */
  digest?: string;
  labels?: Record<string, string>;
  signal?: AbortSignal;
  wait: Wait;
  /** The bytes from `offset` on; what an interrupted ingest already holds is not asked for again. */
  source: (offset: number) => AsyncIterable<Uint8Array>;
  /** Called with the bytes that containerd has. */
  onOffset?: (offset: number) => void;
}

/**
 * Streams a blob into containerd's content store under a lease and commits it, one write under way at a time. Content that
 * is there already gets the lease and the labels. A failure aborts the ingest, so nothing of it stays.
 *
 * Returns the digest and whether the blob was there. Throws `failed` when size or digest differ.
 */
export async function ingest(options: IngestOptions): Promise<{ digest: string; existed: boolean }> {
  if (options.digest === undefined) return await ingestUnknown(options);
  for (let retries = 0;; retries++) {
    try {
      return await ingestOnce(options);
    } catch (error) {
      if (options.digest !== undefined && error instanceof RuntimeError && error.code === "already-exists") {
        await addLabels(options.client, options.digest, { labels: options.labels, signal: options.signal });
        return { digest: options.digest, existed: true };
      }
      if (isLocked(error) && retries < MAX_LOCKED_RETRIES) {
        await options.wait(LOCKED_RETRY_MS, options.signal);
        continue;
      }
      // Another client's ingest is not ours to end; and a containerd that is gone cannot be asked.
      if (!isLocked(error)) await abandon(options.client, options.ref, error);
      throw error;
    }
  }
}

/** An ingest whose digest only its bytes tell. When content turns out to be there already, that gets the lease. */
async function ingestUnknown(options: IngestOptions): Promise<{ digest: string; existed: boolean }> {
  const hash = createHash("sha256");
  const source = async function* (offset: number) {
    for await (const chunk of options.source(offset)) {
      hash.update(chunk);
      yield chunk;
    }
  };
  try {
    return await ingestOnce({ ...options, source });
  } catch (error) {
    await abandon(options.client, options.ref, error);
    if (!(error instanceof RuntimeError) || error.code !== "already-exists") throw error;
    return await ingest({ ...options, digest: `sha256:${hash.digest("hex")}` });
  }
}

async function ingestOnce(options: IngestOptions): Promise<{ digest: string; existed: boolean }> {
  const { ref, size, digest = "", labels = {} } = options;
  const total = BigInt(size);
  using session = new WriteSession(options);
  const stat = await session.ask({ action: WriteAction.STAT, ref, total, expected: digest });
  let offset = Number(stat.offset);
  options.onOffset?.(offset);
  const write = async (data: Uint8Array) => {
    const answer = await session.ask({
      action: WriteAction.WRITE,
      ref,
      total,
      expected: digest,
      offset: BigInt(offset),
      data,
    });
    offset += data.length;
    if (Number(answer.offset) !== offset) {
      throw new RuntimeError(
        "failed",
        `Cannot store content "${digest || ref}": containerd is at ${answer.offset}, not ${offset}`,
      );
    }
    options.onOffset?.(offset);
  };
  if (offset < size) {
    const buffer = new WriteBuffer(WRITE_BYTES);
    for await (const chunk of options.source(offset)) {
      for (const full of buffer.push(chunk)) await write(full);
    }
    const rest = buffer.take();
    if (rest.length > 0) await write(rest);
  }
  try {
    const commit = await session.ask({
      action: WriteAction.COMMIT,
      ref,
      total,
      expected: digest,
      offset: BigInt(offset),
      labels,
    });
    await session.end();
    return { digest: commit.digest || digest, existed: false };
  } catch (error) {
    if (!(error instanceof RuntimeError) || error.code !== "precondition") throw error;
    throw new RuntimeError(
      "failed",
      `Cannot store content "${digest || ref}": ${size} bytes came, but with another digest or size`,
      {
        cause: error,
      },
    );
  }
}

/** Joins small chunks to writes of a good size; a write's bytes are valid until the next push. */
class WriteBuffer {
  readonly #buffer: Uint8Array;
  #length = 0;

  constructor(size: number) {
    this.#buffer = new Uint8Array(size);
  }

  *push(chunk: Uint8Array): Iterable<Uint8Array> {
    let rest = chunk;
    while (rest.length > 0) {
      const part = rest.subarray(0, this.#buffer.length - this.#length);
      this.#buffer.set(part, this.#length);
      this.#length += part.length;
      rest = rest.subarray(part.length);
      if (this.#length === this.#buffer.length) yield this.take();
    }
  }

  take(): Uint8Array {
    const full = this.#buffer.subarray(0, this.#length);
    this.#length = 0;
    return full;
  }
}

/** The bidirectional Content.Write, one request and its answer at a time. */
class WriteSession implements Disposable {
  readonly #abort = new AbortController();
  readonly #answers: AsyncIterator<WriteContentResponse>;
  #next = Promise.withResolvers<MessageInitShape<typeof WriteContentRequestSchema> | undefined>();

  constructor(options: { client: ContainerdClient; leaseId: string; signal?: AbortSignal }) {
    const signal = options.signal
      ? AbortSignal.any([options.signal, this.#abort.signal])
      : this.#abort.signal;
    this.#answers = options.client.content.write(this.#requests(), {
      ...inLease(options.leaseId),
      signal,
      timeoutMs: NO_TIMEOUT,
    })[Symbol.asyncIterator]();
  }

  async ask(request: MessageInitShape<typeof WriteContentRequestSchema>): Promise<WriteContentResponse> {
    this.#next.resolve(request);
    const { value, done } = await this.#answers.next();
    if (done) throw new RuntimeError("unavailable", "Cannot store content: containerd ended the stream");
    return value;
  }

  /** Ends the stream; containerd 1.6 answers a commit twice, the second is read away. */
  async end(): Promise<void> {
    this.#next.resolve(undefined);
    while (!(await this.#answers.next()).done);
  }

  async *#requests() {
    for (;;) {
      const request = await this.#next.promise;
      if (request === undefined) return;
      this.#next = Promise.withResolvers();
      yield create(WriteContentRequestSchema, request);
    }
  }

  [Symbol.dispose](): void {
    this.#next.resolve(undefined);
    this.#abort.abort();
  }
}

/** Reads a small blob. Throws `not-found`, or `invalid` when it is larger than `maxBytes`. */
export async function readContent(
  client: ContainerdClient,
  digest: string,
  options: { maxBytes: number; signal?: AbortSignal },
): Promise<Uint8Array> {
  const { info } = await client.content.info({ digest }, { signal: options.signal });
  const size = Number(info?.size ?? 0);
  if (size > options.maxBytes) {
    throw new RuntimeError(
      "invalid",
      `Cannot read content "${digest}": it is larger than ${options.maxBytes} bytes`,
    );
  }
  const bytes = new Uint8Array(size);
  let offset = 0;
  for await (
    const { data } of client.content.read({ digest, offset: 0n, size: 0n }, { signal: options.signal })
  ) {
    bytes.set(data.subarray(0, size - offset), offset);
    offset += data.length;
  }
  if (offset !== size) {
    throw new RuntimeError("failed", `Cannot read content "${digest}": ${offset} of ${size} bytes came`);
  }
  return bytes;
}

/** Whether a blob is there, in this namespace. */
export async function hasContent(
  client: ContainerdClient,
  digest: string,
  signal?: AbortSignal,
): Promise<boolean> {
  try {
    await client.content.info({ digest }, { signal });
    return true;
  } catch (error) {
    if (isNotFound(error)) return false;
    throw error;
  }
}

/** Sets labels on a blob, leaving its others alone. */
export async function addLabels(
  client: ContainerdClient,
  digest: string,
  options: { labels?: Record<string, string>; signal?: AbortSignal },
): Promise<void> {
  const { labels = {}, signal } = options;
  const paths = Object.keys(labels).map((key) => `labels.${key}`);
  if (paths.length === 0) return;
  await client.content.update({ info: { digest, labels }, updateMask: { paths } }, { signal });
}

async function abandon(client: ContainerdClient, ref: string, because: unknown): Promise<void> {
  try {
    await client.content.abort({ ref });
  } catch (error) {
    if (isNotFound(error)) return;
    // The first failure tells more; containerd drops the ingest with its lease.
    if (error instanceof RuntimeError && because instanceof Error) return;
    throw error;
  }
}

/** Whether another client holds the ingest: containerd says so in words only. */
function isLocked(error: unknown): boolean {
  for (let e = error; e instanceof Error; e = e.cause) if (/\blocked\b/.test(e.message)) return true;
  return false;
}
