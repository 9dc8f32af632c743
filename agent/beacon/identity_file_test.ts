import assert from "node:assert/strict";
import { PrivateKey } from "./identity.ts";
import { IDENTITY_FILE, loadIdentity, MAX_IDENTITY_BYTES, rotateIdentity } from "./identity_file.ts";
import { MAX_ROTATIONS, verifyClaim } from "./identity_rotation.ts";

async function inTempDir(test: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await test(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

const names = (dir: string) => [...Deno.readDirSync(dir)].map((entry) => entry.name).sort();

Deno.test("the identity is made once, for its owner alone, by however many agents", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/data/${IDENTITY_FILE}`;
    const made = await Promise.all(Array.from({ length: 8 }, () => loadIdentity(path)));
    assert.equal(new Set(made.map(({ nodeId }) => nodeId)).size, 1);
    assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
    assert.deepEqual(names(`${dir}/data`), [IDENTITY_FILE]);
    assert.equal((await loadIdentity(path)).text(), made[0].text());
  }));

Deno.test("an identity that others may read, or that is damaged, is refused and left as it is", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/${IDENTITY_FILE}`;
    const { nodeId } = await rotateIdentity(path, { nowMs: 1 }).catch(() => loadIdentity(path));
    const whole = (await rotateIdentity(path, { nowMs: 1 })).text();
    assert.equal((await loadIdentity(path)).nodeId, nodeId);
    await Deno.chmod(path, 0o640);
    await assert.rejects(loadIdentity(path), /Cannot load the identity .*mode must be 0600/);
    await assert.rejects(
      rotateIdentity(path, { nowMs: 1 }),
      /Cannot rotate the identity .*mode must be 0600/,
    );
    await Deno.chmod(path, 0o600);
    const end = whole.indexOf("-----END PRIVATE KEY");
    for (
      const text of [
        "",
        "x",
        whole.slice(0, end),
        whole.slice(0, -1),
        whole.slice(0, -60),
        whole.replace('"seq":1', '"seq":2'),
      ]
    ) {
      await Deno.writeTextFile(path, text);
      await assert.rejects(loadIdentity(path), /Cannot load the identity/, text);
      assert.equal(await Deno.readTextFile(path), text);
    }
    await Deno.writeTextFile(path, whole + "x".repeat(MAX_IDENTITY_BYTES));
    await assert.rejects(loadIdentity(path), /larger than/);
    await Deno.writeTextFile(path, whole);
    assert.equal((await loadIdentity(path)).nodeId, nodeId);
  }));

Deno.test("an identity that somebody planted is neither used nor followed", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/${IDENTITY_FILE}`;
    const planted = PrivateKey.generate().pem();
    await Deno.symlink(`${dir}/elsewhere`, path);
    await assert.rejects(loadIdentity(path), /not a regular file/);
    await Deno.writeTextFile(`${dir}/elsewhere`, planted, { mode: 0o600 });
    await assert.rejects(loadIdentity(path), /not a regular file/);
    await assert.rejects(rotateIdentity(path, { nowMs: 1 }), /not a regular file/);
    assert.equal(await Deno.readTextFile(`${dir}/elsewhere`), planted);
    await Deno.remove(path);
    await Deno.mkdir(path, { mode: 0o700 });
    await assert.rejects(loadIdentity(path), /not a regular file/);
    await Deno.remove(path);
    assert((await new Deno.Command("mkfifo", { args: ["-m", "600", path] }).output()).success);
    await assert.rejects(loadIdentity(path), /not a regular file/);
    assert.deepEqual(names(dir), ["elsewhere", IDENTITY_FILE]);
  }));

Deno.test("rotations at the same moment follow one another; none is lost", () =>
  inTempDir(async (dir) => {
    const path = `${dir}/${IDENTITY_FILE}`;
    await assert.rejects(rotateIdentity(path, { nowMs: 1 }), /there is none/);
    const before = await loadIdentity(path);
    await Promise.all(Array.from({ length: 4 }, (_, i) => rotateIdentity(path, { nowMs: i })));
    const after = await loadIdentity(path);
    assert.equal(after.rotations.length, 4);
    assert("keys" in verifyClaim(after));
    assert.equal(after.nodeId, before.nodeId);
    assert.equal((await Deno.stat(path)).mode! & 0o777, 0o600);
    assert.deepEqual(names(dir), [IDENTITY_FILE]);
  }));

Deno.test("an identity with the most rotations fits its file", () =>
  inTempDir(async (dir) => {
    let identity = await loadIdentity(`${dir}/${IDENTITY_FILE}`);
    for (let i = 0; i < MAX_ROTATIONS; i++) identity = identity.rotated(PrivateKey.generate(), 1e13);
    assert(identity.text().length < MAX_IDENTITY_BYTES);
  }));
