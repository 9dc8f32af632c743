import assert from "node:assert/strict";

const ROOT = new URL("../", import.meta.url).pathname;
const UNITS: Record<string, number> = {
  "": 1,
  B: 1,
  KiB: 1 << 10,
  MiB: 1 << 20,
  ms: 1,
  s: 1_000,
  min: 60_000,
  h: 3_600_000,
};

interface Row {
  name: string;
  value: number;
  file: string;
  metric: string | undefined;
  test: string;
  testFile: string;
}

/** What docs/limits.md says of each limit. */
function rows(): Row[] {
  const table = Deno.readTextFileSync(`${ROOT}docs/limits.md`);
  const pattern =
    /^\| `(\w+)` \| ([\d,]+) ?(\w*) \| [^|]+ \| (?:`(\w+)`|—) \| ([^|]+) \| (\S+_test\.ts) \| (\S+\.ts) \|$/gm;
  return [...table.matchAll(pattern)].map(([, name, number, unit, metric, test, testFile, file]) => {
    assert.ok(unit in UNITS, `${name}: ${unit}`);
    return { name, value: Number(number.replaceAll(",", "")) * UNITS[unit], metric, test, testFile, file };
  });
}

/** A number that the file exports under that name or in one of its objects, or that it keeps to itself. */
async function valueOf(name: string, file: string): Promise<unknown> {
  const module: Record<string, unknown> = await import(`${ROOT}${file}`);
  for (const each of [module, ...Object.values(module)]) {
    if (typeof each === "object" && each !== null && name in each) {
      return (each as Record<string, unknown>)[name];
    }
  }
  const own = new RegExp(`^const ${name} = ([\\d_]+);$`, "m").exec(Deno.readTextFileSync(`${ROOT}${file}`));
  return own === null ? undefined : Number(own[1].replaceAll("_", ""));
}

/** Names of metrics in the sources of those that register them. */
function metricNames(): Set<string> {
  const names = new Set<string>();
  for (const folder of ["agent/metrics", "agent/peer", "gossip"]) {
    for (const { name } of Deno.readDirSync(`${ROOT}${folder}`)) {
      if (!name.endsWith("metrics.ts")) continue;
      const text = Deno.readTextFileSync(`${ROOT}${folder}/${name}`);
      for (const [, found] of text.matchAll(/"((?:hypercore|ibrl)_\w+)"/g)) names.add(found);
      if (folder !== "gossip") continue;
      for (const [, found] of text.matchAll(/"(\w+_total)"/g)) names.add(`hypercore_gossip_${found}`);
    }
  }
  return names;
}

Deno.test("rule 8: each limit that docs/limits.md names has that value, a metric that exists, and a test", async () => {
  const all = rows();
  const lines = Deno.readTextFileSync(`${ROOT}docs/limits.md`).split("\n");
  assert.equal(all.length, lines.filter((line) => line.startsWith("| `")).length, "a row is not readable");
  assert.ok(all.length > 100, `${all.length}`);
  const metrics = metricNames();
  for (const { name, value, file, metric, test, testFile } of all) {
    assert.equal(await valueOf(name, file), value, `${name} in ${file}`);
    assert.ok(metric === undefined || metrics.has(metric), `${name}: ${metric}`);
    const tests = Deno.readTextFileSync(`${ROOT}${testFile}`);
    assert.ok(
      tests.includes(`Deno.test("${test}"`) || tests.includes(`Deno.test(\`${test}`),
      `${testFile}: ${test}`,
    );
  }
});
