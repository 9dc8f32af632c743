import assert from "node:assert/strict";
import { compress, type Compression, type TarEntry, writeTar } from "../../tests/support/images.ts";
import { RuntimeError } from "../errors.ts";
import { MAX_ARCHIVE_ENTRIES, readArchive } from "./archive.ts";

/** Bytes in pieces of a size. */
async function* pieces(bytes: Uint8Array, size: number): AsyncIterable<Uint8Array> {
  for (let offset = 0; offset < bytes.length; offset += size) {
    await Promise.resolve();
    yield bytes.subarray(offset, offset + size);
  }
}

async function read(source: AsyncIterable<Uint8Array>, signal?: AbortSignal): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of readArchive(source, signal)) {
    if (entry.kind === "link") {
      found.push(`${entry.path} -> ${entry.target}`);
      continue;
    }
    let text = "";
    for await (const chunk of entry.data) text += new TextDecoder().decode(chunk);
    assert.equal(text.length, entry.size);
    found.push(`${entry.path}: ${text}`);
  }
  return found;
}

function refusal(reason: RegExp) {
  return (error: unknown) => {
    assert(error instanceof RuntimeError, String(error));
    assert.equal(error.code, "invalid");
    assert.match(error.message, /^Cannot load the image archive: /);
    assert.match(error.message, reason);
    return true;
  };
}

const ENTRIES: Record<string, TarEntry> = {
  "./a": { content: "one" },
  "dir": { dir: true },
  "dir/b": { content: "two" },
  "dir/link": { symlink: "../a" },
  "hard": { hardlink: "./a" },
  "device": { device: { major: 1, minor: 3 } },
  "empty": {},
  [`long/${"x".repeat(150)}`]: { content: "three" },
};
const FOUND = [
  "a: one",
  "dir/b: two",
  "dir/link -> a",
  "hard -> a",
  "empty: ",
  `long/${"x".repeat(150)}: three`,
];

Deno.test("an archive is read plain, gzipped and zstd-compressed, in pieces of any size", async () => {
  const tar = writeTar(ENTRIES);
  for (const compression of ["none", "gzip", "zstd"] as Compression[]) {
    const bytes = compress(tar, compression);
    for (const size of [1, 100, 1 << 20]) {
      assert.deepEqual(await read(pieces(bytes, size)), FOUND, compression);
    }
  }
});

Deno.test("data that is not read is skipped", async () => {
  const tar = writeTar({ a: { bytes: new Uint8Array(300_000) }, b: { content: "b" } });
  const paths: string[] = [];
  for await (const { path } of readArchive(pieces(tar, 10_000))) paths.push(path);
  assert.deepEqual(paths, ["a", "b"]);
});

Deno.test("paths that lead out are refused", async () => {
  const hostile: (readonly [string, TarEntry])[] = [
    ["../evil", { content: "x" }],
    ["a/../../evil", { content: "x" }],
    ["link", { symlink: "../../etc/passwd" }],
    ["hard", { hardlink: "../x" }],
  ];
  for (const entry of hostile) {
    await assert.rejects(read(pieces(writeTar([entry]), 512)), refusal(/leads out of it/));
  }
  // An absolute one is a name like any other: nothing is written under it.
  assert.deepEqual(await read(pieces(writeTar({ "/etc/passwd": { content: "x" } }), 512)), ["etc/passwd: x"]);
});

Deno.test("what is cut off or no tar is refused", async () => {
  const tar = writeTar({ a: { bytes: new Uint8Array(5_000) } });
  const cases: Record<string, Uint8Array> = {
    empty: new Uint8Array(),
    short: new Uint8Array([1, 2, 3]),
    "all zero": new Uint8Array(2048),
    text: new TextEncoder().encode("no tar at all ".repeat(100)),
    "cut in data": tar.subarray(0, 2_000),
    "cut in header": tar.subarray(0, 300),
    "cut gzip": compress(writeTar({ a: { bytes: crypto.getRandomValues(new Uint8Array(50_000)) } }), "gzip")
      .subarray(0, 20_000),
    "cut zstd": compress(writeTar({ a: { bytes: crypto.getRandomValues(new Uint8Array(50_000)) } }), "zstd")
      .subarray(0, 20_000),
    "broken gzip": new Uint8Array([0x1f, 0x8b, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
  };
  for (const [name, bytes] of Object.entries(cases)) {
    await assert.rejects(read(pieces(bytes, 700)), refusal(/./), name);
  }
});

Deno.test("an archive of endless entries is refused", async () => {
  const header = writeTar({ a: {} }).subarray(0, 512);
  const source = async function* () {
    const many = new Uint8Array(512 * 1000);
    for (let i = 0; i < 1000; i++) many.set(header, 512 * i);
    for (;;) {
      await Promise.resolve();
      yield many;
    }
  };
  await assert.rejects(read(source()), refusal(new RegExp(`more than ${MAX_ARCHIVE_ENTRIES} entries`)));
});

Deno.test("a source that fails or is cancelled is told, and ended", async () => {
  const tar = writeTar({ a: { bytes: new Uint8Array(100_000) } });
  let ended = 0;
  const source = async function* (atEnd: () => Promise<void>) {
    try {
      yield tar.subarray(0, 50_000);
      await atEnd();
    } finally {
      ended++;
    }
  };
  await assert.rejects(read(source(() => Promise.reject(new Error("disk gone")))), refusal(/disk gone/));
  const controller = new AbortController();
  const canceled = read(
    source(() => {
      controller.abort(new Error("enough"));
      return Promise.resolve();
    }),
    controller.signal,
  );
  await assert.rejects(
    canceled,
    (error: unknown) => error instanceof RuntimeError && error.code === "canceled",
  );
  assert.equal(ended, 2);
});
