import { LARGE_BUFFER_BYTES, SMALL_BUFFER_BYTES } from "./buffers.ts";
import { ChunkScanner, findTrailerEnd } from "./http1/chunked.ts";
import { Trailers } from "./http1/head.ts";
import { allowedTrailers } from "./http1/rewrite.ts";
import { HttpError } from "./http_error.ts";
import type { ProxyLimits } from "./limits.ts";
import type { ContentSink } from "./sink.ts";
import type { Source } from "./source.ts";

/** How the end of a body is found (RFC 9112 §6.3). */
export type Framing =
  | { kind: "none" }
  | { kind: "length"; bytes: number }
  | { kind: "chunked" }
  | { kind: "until-close" };

export interface ContentOptions {
  limits: ProxyLimits;
  /** Chunked bodies go out as they are, framing checked and kept, rather than decoded. */
  raw: boolean;
  /** Longest content: 413. */
  maxBytes: number;
  /** Called after each step that made progress. */
  onProgress(bytes: number): void;
}

/**
 * Moves a whole body from `source` to `sink`, never holding more than one buffer of it. Throws {@linkcode HttpError} 400 on
 * bad framing and on an early end, 413 when it is longer than `maxBytes`; errors of the sink pass through.
 */
export async function moveContent(
  source: Source,
  framing: Framing,
  sink: ContentSink,
  options: ContentOptions,
): Promise<void> {
  switch (framing.kind) {
    case "none":
      break;
    case "length":
      await moveLength(source, framing.bytes, sink, options);
      break;
    case "chunked":
      await moveChunked(source, sink, options);
      break;
    case "until-close":
      await moveLength(source, Infinity, sink, options);
      break;
  }
  await sink.flush();
}

async function moveLength(
  source: Source,
  bytes: number,
  sink: ContentSink,
  options: ContentOptions,
): Promise<void> {
  let left = bytes;
  try {
    // What came with the head may be but the first record of it.
    if (source.buffered > 0 && left > source.buffered) await source.fillReady();
    while (left > 0) {
      if (source.buffered === 0) {
        await sink.flush();
        if (left > SMALL_BUFFER_BYTES) source.resize(LARGE_BUFFER_BYTES);
        await source.fill();
        if (left > source.buffered) await source.fillReady();
        if (source.buffered === 0 && source.ended) {
          if (left === Infinity) return;
          throw new HttpError(400, "the connection ended within a body");
        }
      }
      const take = Math.min(left, source.buffered);
      await sink.write(source.buffer.subarray(source.start, source.start + take), source.start);
      source.start += take;
      left -= take;
      options.onProgress(take);
    }
  } finally {
    source.resize(SMALL_BUFFER_BYTES);
  }
}

async function moveChunked(source: Source, sink: ContentSink, options: ContentOptions): Promise<void> {
  const { limits, raw, maxBytes } = options;
  const scanner = new ChunkScanner(limits.maxChunkLineBytes);
  const ranges: number[] = [];
  const onData = raw ? undefined : (start: number, end: number) => void ranges.push(start, end);
  let filled = 0;
  try {
    while (!scanner.done) {
      if (source.buffered === 0) {
        await sink.flush();
        // A full buffer means that the body is large.
        if (filled >= SMALL_BUFFER_BYTES / 2) source.resize(LARGE_BUFFER_BYTES);
        filled = await source.fill();
        if (filled >= SMALL_BUFFER_BYTES / 2) await source.fillReady();
        if (source.buffered === 0 && source.ended) {
          throw new HttpError(400, "the connection ended within a body");
        }
      }
      const from = source.start;
      const to = scanner.scan(source.buffer, from, source.end, onData);
      if (scanner.dataBytes > maxBytes) throw new HttpError(413, "the body is too large");
      if (raw) {
        // The last chunk's line goes out with the trailers.
        await sink.write(source.buffer.subarray(from, to), from);
      } else {
        for (let i = 0; i < ranges.length; i += 2) {
          await sink.write(source.buffer.subarray(ranges[i], ranges[i + 1]));
        }
        ranges.length = 0;
      }
      source.start = to;
      options.onProgress(to - from);
    }
    await moveTrailers(source, sink, options);
  } finally {
    source.resize(SMALL_BUFFER_BYTES);
  }
}

async function moveTrailers(source: Source, sink: ContentSink, options: ContentOptions): Promise<void> {
  const { limits, raw } = options;
  let end = findTrailerEnd(source.buffer, source.start, source.end);
  while (end < 0) {
    if (source.buffered > limits.maxTrailerBytes) throw new HttpError(431, "the trailers are too long");
    await sink.flush();
    await source.fill();
    if (source.ended) throw new HttpError(400, "the connection ended within a body");
    end = findTrailerEnd(source.buffer, source.start, source.end);
  }
  const bytes = end - source.start;
  if (bytes > limits.maxTrailerBytes) throw new HttpError(431, "the trailers are too long");
  let fields: [string, string][] = [];
  if (bytes > 2) {
    const trailers = new Trailers();
    trailers.parse(source.buffer, source.start, end, limits.maxHeaders);
    fields = allowedTrailers(source.buffer, trailers);
  }
  source.start = end;
  options.onProgress(bytes);
  if (raw) await sink.write(encodeTrailers(fields));
  else if (fields.length > 0) sink.trailers?.(fields);
}

function encodeTrailers(fields: [string, string][]): Uint8Array {
  const text = fields.map(([name, value]) => `${name}: ${value}\r\n`).join("") + "\r\n";
  return Uint8Array.from(text, (char) => char.charCodeAt(0));
}
