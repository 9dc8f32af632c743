import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress } from "node:zlib";
// @ts-types="@types/tar-stream"
import { extract } from "tar-stream";
import { RuntimeError } from "../errors.ts";

/** One entry of an image archive, in the order of the tar. */
export type ArchiveEntry =
  | { kind: "file"; path: string; size: number; data: AsyncIterable<Uint8Array> }
  | { kind: "link"; path: string; target: string };

/** Entries looked at before an archive is refused. */
export const MAX_ARCHIVE_ENTRIES = 100_000;

/**
 * The files and links of a tar, plain or compressed with gzip or zstd (told by the first bytes). The data of an entry must be
 * read before the next entry is asked for. Paths are normalised and only ever names: nothing is written under them.
 * Throws `invalid` for what is not a tar, ends early, or has paths that climb.
 */
export async function* readArchive(
  source: AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
): AsyncIterable<ArchiveEntry> {
  const input = source[Symbol.asyncIterator]();
  const first = await firstBytes(input);
  const bytes = Readable.from(chained(first, input), { objectMode: false });
  const tar = extract();
  const stages = startsWith(first, [0x1f, 0x8b])
    ? [createGunzip(), tar]
    : startsWith(first, [0x28, 0xb5, 0x2f, 0xfd])
    ? [createZstdDecompress(), tar]
    : [tar];
  // The failure reaches the loop below through the tar stream.
  const flow = pipeline([bytes, ...stages] as unknown as [Readable, NodeJS.WritableStream], { signal })
    .catch(() => undefined);
  let entries = 0;
  try {
    for await (const entry of tar) {
      const { name, type, size = 0, linkname } = entry.header;
      if (++entries > MAX_ARCHIVE_ENTRIES) {
        throw new RuntimeError(
          "invalid",
          `Cannot load the image archive: it has more than ${MAX_ARCHIVE_ENTRIES} entries`,
        );
      }
      const path = normalise(name, "");
      if (type === "file" || type === "contiguous-file") {
        yield {
          kind: "file",
          path,
          size,
          data: entryData(entry as unknown as AsyncIterable<Uint8Array>, signal),
        };
      } else if (type === "symlink" || type === "link") {
        const base = type === "symlink" ? path.split("/").slice(0, -1).join("/") : "";
        yield { kind: "link", path, target: normalise(linkname ?? "", base) };
      }
      entry.resume();
    }
  } catch (error) {
    throw archiveError(error, signal);
  } finally {
    tar.destroy();
    bytes.destroy();
    await flow;
  }
  if (entries === 0) {
    throw new RuntimeError("invalid", "Cannot load the image archive: it is empty or not a tar");
  }
}

/** The data of one entry, whose failures are told like those between entries. */
async function* entryData(
  data: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncIterable<Uint8Array> {
  try {
    yield* data;
  } catch (error) {
    throw archiveError(error, signal);
  }
}

function archiveError(error: unknown, signal: AbortSignal | undefined): RuntimeError {
  if (signal?.aborted) {
    return new RuntimeError("canceled", "Cannot load the image archive: canceled", { cause: error });
  }
  if (error instanceof RuntimeError) return error;
  return new RuntimeError("invalid", `Cannot load the image archive: ${(error as Error).message}`, {
    cause: error,
  });
}

/** A path of an archive without ".", ".." and doubled slashes, relative to `base`. */
function normalise(path: string, base: string): string {
  const parts: string[] = base === "" ? [] : base.split("/");
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.pop() === undefined) {
      throw new RuntimeError(
        "invalid",
        `Cannot load the image archive: the path ${JSON.stringify(path)} leads out of it`,
      );
    }
  }
  return parts.join("/");
}

async function firstBytes(input: AsyncIterator<Uint8Array>): Promise<Uint8Array> {
  let bytes = new Uint8Array();
  while (bytes.length < 4) {
    const { value, done } = await input.next();
    if (done) break;
    const joined = new Uint8Array(bytes.length + value.length);
    joined.set(bytes);
    joined.set(value, bytes.length);
    bytes = joined;
  }
  return bytes;
}

async function* chained(first: Uint8Array, rest: AsyncIterator<Uint8Array>): AsyncIterable<Uint8Array> {
  try {
    if (first.length > 0) yield first;
    for (;;) {
      const { value, done } = await rest.next();
      if (done) return;
      yield value;
    }
  } finally {
    await rest.return?.();
  }
}

function startsWith(bytes: Uint8Array, magic: readonly number[]): boolean {
  return magic.every((byte, i) => bytes[i] === byte);
}
