import assert from "node:assert/strict";
import { silentLog } from "../../runtime/log.ts";
import { PinnedPeers } from "./identity_pins.ts";
import { loadPins, MAX_PINS_BYTES, PINS_FILE, savePins } from "./identity_pins_file.ts";
import { memoryIdentity } from "./testing.ts";

Deno.test("pins are saved whole and found again; a damaged file is put aside", async () => {
  const dir = await Deno.makeTempDir();
  const warnings: string[] = [];
  const options = { log: { ...silentLog, warn: (message: string) => void warnings.push(message) } };
  try {
    assert.equal((await loadPins(dir, options)).size, 0);
    const pins = new PinnedPeers();
    for (let i = 0; i < 3; i++) pins.accept(memoryIdentity(), i);
    await savePins(dir, pins);
    assert.deepEqual((await loadPins(dir, options)).dump(), pins.dump());
    assert.deepEqual([...Deno.readDirSync(dir)].map(({ name }) => name), [PINS_FILE]);
    assert.deepEqual(warnings, []);
    const text = await Deno.readTextFile(`${dir}/${PINS_FILE}`);
    for (const damaged of [text.slice(0, -3), "{}", " ".repeat(MAX_PINS_BYTES + 1)]) {
      await Deno.writeTextFile(`${dir}/${PINS_FILE}`, damaged);
      assert.equal((await loadPins(dir, options)).size, 0);
      assert.equal(await Deno.readTextFile(`${dir}/${PINS_FILE}.damaged`), damaged);
    }
    assert.equal(warnings.length, 3);
    await assert.rejects(savePins(`${dir}/none`, pins), /Cannot save the pinned keys/);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});

Deno.test("a full table of pins fits its file", () => {
  const pins = new PinnedPeers();
  pins.accept(memoryIdentity(), Number.MAX_SAFE_INTEGER);
  assert(JSON.stringify(pins.dump()).length + 16 < 256);
});
