import assert from "node:assert/strict";
import { dirname, join, normalize, relative } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = normalize(join(dirname(fileURLToPath(import.meta.url)), ".."));

/** Longest source file; it is to be read in one sitting. */
const MAX_LINES = 450;
/** The same for a file of tests. */
const MAX_TEST_LINES = 600;

/** From folder (the longest that fits counts) to what it may import besides itself. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  "main.ts": ["cli"],
  "cli": ["agent", "proto", "runtime/log.ts"],
  "agent": ["gossip", "runtime", "proto"],
  // The proxy's hop between nodes opens with the same handshake as the calls between them.
  "agent/proxy": ["runtime/log.ts", "agent/peer/handshake"],
  "agent/peer/handshake": [],
  "gossip": [],
  "runtime": ["proto"],
  "proto": [],
};

/** What no decision core of gossip may touch: sockets, clocks, randomness. */
const IMPURE =
  /\b(Deno\.|setTimeout|setInterval|Date\.now|new Date\(|performance\.|Math\.random|crypto\.getRandom)/;

/** Marks of unfinished work and of machines, which have no place in a file that ships. */
const FORBIDDEN = [
  /\bTO[D]O\b/,
  /\bFIX[M]E\b/,
  /\bXX[X]\b/,
  /\/wor[k]\//,
  /registry\.npm[j]s/,
  /debugge[r];/,
];

interface Source {
  path: string;
  text: string;
}

const files = trackedFiles();
const sources = files.filter(({ path }) => path.endsWith(".ts") && !path.startsWith("proto/gen/"));
const code = sources.filter(({ path }) =>
  !/_test\.ts$|\/test_\w+\.ts$|^tests\/|\/testing(\/|\.ts$)|^tools\//.test(path)
);

Deno.test("no file imports what its folder may not know", () => {
  const wrong = code.flatMap(({ path, text }) =>
    imports(path, text).filter((target) => !isAllowed(path, target)).map((target) =>
      `${path} imports ${target}`
    )
  );
  assert.deepEqual(wrong, []);
});

Deno.test("a forbidden import is found", () => {
  assert.equal(isAllowed("gossip/serf.ts", "runtime/engine.ts"), false);
  assert.equal(isAllowed("runtime/engine.ts", "agent/config.ts"), false);
  assert.equal(isAllowed("agent/proxy/mod.ts", "runtime/containerd/mod.ts"), false);
  assert.equal(isAllowed("cli/main.ts", "gossip/mod.ts"), false);
  assert.equal(isAllowed("agent/agent.ts", "agent/proxy/mod.ts"), true);
  assert.deepEqual(
    imports(
      "cli/a.ts",
      'import { x } from "../b.ts";\nawait import("./c.ts");\nexport * from "../runtime/d.ts";',
    ),
    ["b.ts", "cli/c.ts", "runtime/d.ts"],
  );
});

Deno.test("gossip's cores touch no socket, clock or randomness", () => {
  const cores = code.filter(({ path }) =>
    path.startsWith("gossip/") && !/driver|transport|random\.ts|create\.ts|^gossip\/net\//.test(path)
  );
  assert.deepEqual(
    cores.filter(({ text }) => IMPURE.test(withoutComments(text))).map(({ path }) => path),
    [],
  );
});

Deno.test("the policy engine touches no socket, clock or randomness", () => {
  const cores = code.filter(({ path }) => /^agent\/policy\/(?!store|gate)/.test(path));
  assert.deepEqual(
    cores.filter(({ text }) => IMPURE.test(withoutComments(text))).map(({ path }) => path),
    [],
  );
});

Deno.test("the cluster's cores touch no socket, clock or randomness, and wait for nothing", () => {
  const cores = code.filter(({ path }) => path.startsWith("agent/cluster/"));
  assert.ok(cores.length > 0);
  const wrong = cores.filter(({ text }) =>
    IMPURE.test(withoutComments(text)) || /\bawait\b/.test(withoutComments(text))
  );
  assert.deepEqual(wrong.map(({ path }) => path), []);
});

Deno.test("no source file is longer than one sitting", () => {
  const long = sources.map(({ path, text }) => ({ path, lines: text.split("\n").length - 1 }))
    .filter(({ path, lines }) => lines > (path.endsWith("_test.ts") ? MAX_TEST_LINES : MAX_LINES));
  assert.deepEqual(long, []);
});

Deno.test("no file carries marks of unfinished work or of somebody's machine", () => {
  const found = files.filter(({ path }) => !/^(deno\.lock|LICENSE|proto\/gen\/)/.test(path)).flatMap((
    { path, text },
  ) => FORBIDDEN.filter((pattern) => pattern.test(text)).map((pattern) => `${path}: ${pattern}`));
  assert.deepEqual(found, []);
});

function isAllowed(path: string, target: string): boolean {
  const folder = longestMatch(path);
  if (folder === undefined || target === folder || target.startsWith(`${folder}/`)) return true;
  return MAY_IMPORT[folder].some((allowed) => target === allowed || target.startsWith(`${allowed}/`));
}

function longestMatch(path: string): string | undefined {
  return Object.keys(MAY_IMPORT).filter((folder) => path === folder || path.startsWith(`${folder}/`))
    .sort((a, b) => b.length - a.length)[0];
}

/** Relative imports of a file, from the repository's root. */
function imports(path: string, text: string): string[] {
  const pattern = /(?:\bfrom\s*|\bimport\s*\(?\s*|new URL\(\s*)["'](\.{1,2}\/[^"']+\.(?:ts|js))["']/g;
  return [...withoutComments(text).matchAll(pattern)].map((match) =>
    normalize(join(dirname(path), match[1]))
  );
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
}

function trackedFiles(): Source[] {
  const found: Source[] = [];
  const visit = (dir: string) => {
    for (const entry of Deno.readDirSync(dir)) {
      const path = join(dir, entry.name);
      if (entry.isDirectory && !/^(\.git|\.tools|node_modules|build|coverage)$/.test(entry.name)) visit(path);
      if (
        entry.isFile && /\.(ts|sh|md|json|proto|toml|service|lock)$|Makefile$|LICENSE$|\.ci\/run$/.test(path)
      ) {
        found.push({ path: relative(ROOT, path), text: Deno.readTextFileSync(path) });
      }
    }
  };
  visit(ROOT);
  return found;
}
