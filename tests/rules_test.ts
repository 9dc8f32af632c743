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
  const sentences = [...table.matchAll(/^\| (\d[a-z]?) \| .+ \| (.+?) \| \S+_test\.ts \|$/gm)]
    .filter(([row]) => row.split(" | ").length === 4);
  assert.ok(sentences.length >= 30, `${sentences.length}`);
  for (const [, sentence, name] of sentences) assert.ok(name.startsWith(`rule ${sentence}: `), name);
});
