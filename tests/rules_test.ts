import assert from "node:assert/strict";

const ROOT = new URL("../", import.meta.url).pathname;

Deno.test("each test that docs/rules.md names is there, and each sentence of rules 1 to 9 has one", () => {
  const table = Deno.readTextFileSync(`${ROOT}docs/rules.md`);
  const rows = [...table.matchAll(/^\|.*\| (.+?) \| (\S+_test\.ts) \|$/gm)];
  assert.ok(rows.length > 40);
  const rules = new Set<string>();
  for (const [, name, file] of rows) {
    assert.ok(Deno.readTextFileSync(`${ROOT}${file}`).includes(`Deno.test("${name}"`), `${file}: ${name}`);
    const rule = name.match(/^rule (\d)/)?.[1];
    if (rule !== undefined) rules.add(rule);
  }
  assert.equal([...rules].sort().join(""), "123456789");
});
