import assert from "node:assert/strict";
import { createSerf } from "../mod.ts";
import { silentLog } from "../log.ts";
import { readKeyring, readKeyringExtras, writeKeyring } from "./keyring_file.ts";

const keys = [1, 2].map((fill) => new Uint8Array(32).fill(fill));
const extras = {
  version: 9,
  secret: new Uint8Array(32).fill(3),
  retired: [new Uint8Array(16).fill(4)],
  doors: new Map([["away", new Uint8Array(32).fill(5)]]),
};

async function withFile(use: (path: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await use(`${dir}/keys`);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

Deno.test("a key ring and what is kept beside it are read as they were written, by their owner alone", async () => {
  await withFile(async (path) => {
    assert.deepEqual([await readKeyring(path), await readKeyringExtras(path)], [undefined, undefined]);
    writeKeyring(path, { keys, extras }, silentLog);
    assert.deepEqual(await readKeyring(path), keys);
    assert.deepEqual(await readKeyringExtras(path), extras);
    const ring = JSON.parse(await Deno.readTextFile(path));
    assert.deepEqual(ring, keys.map((key) => key.toBase64()), "the format is Serf's");
    for (const file of [path, `${path}.rejoin`]) assert.equal((await Deno.stat(file)).mode! & 0o777, 0o600);
  });
});

Deno.test("a key ring file that makes no sense is refused by name", async () => {
  await withFile(async (path) => {
    for (const text of ["", "{}", "[1]", '["not base64!"]']) {
      await Deno.writeTextFile(path, text);
      await assert.rejects(() => readKeyring(path), new RegExp(`Cannot read key ring "${path}"`), text);
    }
    for (const text of ["", "[]", "{}", '{"version":1,"secret":"AA==","retired":[],"doors":{}}']) {
      await Deno.writeTextFile(`${path}.rejoin`, text);
      await assert.rejects(() => readKeyringExtras(path), /Cannot read ".*\.rejoin"/, text);
    }
  });
});

Deno.test("a node starts without what is kept beside its key ring, and makes it anew", async () => {
  await withFile(async (path) => {
    writeKeyring(path, { keys, extras }, silentLog);
    await Deno.writeTextFile(`${path}.rejoin`, "torn");
    const errors: string[] = [];
    const log = { ...silentLog, error: (message: string) => errors.push(message) };
    const bind = { host: "127.0.0.1", port: 0 };
    await using serf = await createSerf({ name: "a", bind, keyringFile: path, log });
    assert.deepEqual([serf.keys(), errors.length], [keys, 1]);
    assert.equal((await readKeyringExtras(path))?.secret.length, 32);
  });
});
