import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");

interface Result {
  code: number;
  out: string;
  err: string;
}

async function command(
  program: string,
  args: string[],
  env: Record<string, string> = {},
  cwd = ROOT,
): Promise<Result> {
  const output = await new Deno.Command(program, { args, env, cwd, stdin: "null" }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  return { code: output.code, out: text(output.stdout), err: text(output.stderr) };
}

/** Directory under the cache that holds the unpacked program. */
function unpacked(cache: string): string {
  const names = [...Deno.readDirSync(cache)].map(({ name }) => name).filter((name) => !name.startsWith("."));
  assert.equal(names.length, 1);
  return join(cache, names[0]);
}

Deno.test("the build gives one executable that stands alone", async (t) => {
  const dir = await Deno.makeTempDir({ prefix: "hc-build-" });
  const hypercore = join(dir, "hypercore");
  const run = (args: string[], cache: string, env: Record<string, string> = {}) =>
    command(hypercore, args, { HYPERCORE_CACHE_DIR: cache, ...env });
  try {
    const built = await command("tools/build.sh", [hypercore], { HYPERCORE_BUILD: "pack" });
    assert.equal(built.code, 0, built.err);
    assert.match(built.out, /self-extracting/);

    await t.step("version says what it is", async () => {
      const { code, out } = await run(["version", "--json"], join(dir, "a"));
      assert.equal(code, 0);
      assert.equal(JSON.parse(out).build, "self-extracting");
      assert.match(JSON.parse(out).deno, /^\d+\.\d+\.\d+$/);
    });
    await t.step("concurrent first runs all work and leave one copy", async () => {
      const cache = join(dir, "b");
      const results = await Promise.all(Array.from({ length: 4 }, () => run(["version"], cache)));
      assert.deepEqual(results.map(({ code }) => code), [0, 0, 0, 0], JSON.stringify(results));
      assert.equal([...Deno.readDirSync(cache)].length, 1);
      assert.equal(Deno.statSync(cache).mode! & 0o777, 0o700);
    });
    await t.step("a damaged copy is repaired", async () => {
      const cache = join(dir, "b");
      const main = join(unpacked(cache), "main.js");
      for (
        const damage of [
          () => Deno.removeSync(main),
          () => Deno.truncateSync(main, 10),
          () => Deno.chmodSync(main, 0o666),
          () => Deno.utimeSync(main, 1, 1),
        ]
      ) {
        damage();
        assert.equal((await run(["version"], cache)).code, 0);
        assert.equal(Deno.statSync(main).mode! & 0o777, 0o400);
      }
    });
    await t.step("a cache that can't be written is one clear line", async () => {
      const { code, err } = await run(["version"], "/proc/hypercore");
      assert.equal(code, 126);
      assert.match(err, /^hypercore: cannot create the cache \/proc\/hypercore; set HYPERCORE_CACHE_DIR .*$/);
    });
    await t.step("root runs no cache that another user could write", async () => {
      for (const [name, mode, owner] of [["open", 0o777, 0], ["others", 0o700, 65534]] as const) {
        const cache = join(dir, name);
        await Deno.mkdir(cache);
        await Deno.chmod(cache, mode);
        await Deno.chown(cache, owner, owner);
        const { code, err } = await run(["version"], cache);
        assert.equal(code, 126);
        assert.match(err, /others may write|belongs to user 65534/);
      }
      const parent = join(dir, "parent");
      await Deno.mkdir(parent);
      await Deno.chown(parent, 65534, 65534);
      assert.match((await run(["version"], join(parent, "cache"))).err, /belongs to user 65534/);
      await Deno.symlink(join(dir, "b"), join(dir, "link"));
      assert.match((await run(["version"], join(dir, "link"))).err, /symbolic link/);
    });
    await t.step("a damaged executable says so", async () => {
      const bad = join(dir, "bad");
      await Deno.copyFile(hypercore, bad);
      const file = await Deno.open(bad, { write: true });
      await file.seek(-1000, Deno.SeekMode.End);
      await file.write(new Uint8Array(10));
      file.close();
      const { code, err } = await command(bad, ["version"], { HYPERCORE_CACHE_DIR: join(dir, "c") });
      assert.equal(code, 126);
      assert.match(err, /is damaged: its payload does not have the hash/);
    });
    await t.step("it works from PATH, through a symbolic link and without HOME", async () => {
      await Deno.symlink(hypercore, join(dir, "hc"));
      const env = ["-i", `PATH=${dir}:/usr/bin:/bin`, `HYPERCORE_CACHE_DIR=${join(dir, "b")}`];
      const { code, out } = await command("/usr/bin/env", [...env, "hc", "version"], {}, "/");
      assert.equal(code, 0);
      assert.match(out, /^hypercore \d/);
    });
    await t.step("arguments and exit codes pass through", async () => {
      const cache = join(dir, "b");
      assert.equal((await run(["stop", "a b"], cache)).code, 2);
      assert.match((await run(["stop", "a  'b"], cache)).err, /"a {2}'b" is not a workload's id/);
      assert.equal((await run(["exec", "w"], cache)).code, 125);
    });
    await t.step("the pid stays, and is named hypercore", async () => {
      const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const child = new Deno.Command(hypercore, {
        args: ["list", "--api", `127.0.0.1:${listener.addr.port}`],
        env: { HYPERCORE_CACHE_DIR: join(dir, "b") },
      }).spawn();
      try {
        const connection = await listener.accept();
        assert.equal(Deno.readTextFileSync(`/proc/${child.pid}/comm`), "hypercore\n");
        connection.close();
      } finally {
        listener.close();
        child.kill();
        await child.status;
      }
    });
    await t.step("the same sources give the same bytes", async () => {
      const again = join(dir, "again");
      await command("tools/build.sh", [again], { HYPERCORE_BUILD: "pack" });
      const { code } = await command("cmp", [hypercore, again]);
      assert.equal(code, 0);
    });
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
