import assert from "node:assert/strict";
import { parseHac } from "../cli/hac.ts";

const ROOT = new URL("../", import.meta.url).pathname;
const MONITORING = `${ROOT}examples/monitoring`;

Deno.test("examples: the hac.toml can be read", () => {
  const hac = parseHac(Deno.readTextFileSync(`${ROOT}examples/hac.toml`));
  assert.equal(hac.ref, "docker.io/library/nginx:1");
});

Deno.test("examples: dashboard and alerts ask for metrics that there are", () => {
  const source = ["agent", "gossip"].map(sourceText).join("\n");
  const asked = new Set<string>();
  for (const { name } of Deno.readDirSync(MONITORING)) {
    const text = Deno.readTextFileSync(`${MONITORING}/${name}`);
    if (name.endsWith(".json")) JSON.parse(text);
    for (const [metric] of text.matchAll(/\b(?:hypercore|ibrl)_[a-z0-9_]+/g)) {
      asked.add(metric.replace(/_(?:bucket|count|sum)$/, ""));
    }
  }
  assert.ok(asked.size > 20);
  for (const metric of asked) {
    // Gossip's own names are given without the prefix.
    const names = [metric, metric.replace("hypercore_gossip_", "")];
    assert.ok(names.some((name) => source.includes(`"${name}"`)), metric);
  }
});

function sourceText(folder: string): string {
  return [...Deno.readDirSync(`${ROOT}${folder}`)].map(({ name, isDirectory }) => {
    if (isDirectory) return sourceText(`${folder}/${name}`);
    return name.endsWith(".ts") && !name.endsWith("_test.ts")
      ? Deno.readTextFileSync(`${ROOT}${folder}/${name}`)
      : "";
  }).join("\n");
}
