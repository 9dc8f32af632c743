/** What this program is and what it runs on. */
export interface VersionInfo {
  version: string;
  /** Git commit, with `-modified` when the tree had changes; "unknown" outside a repository. */
  commit: string;
  /** "compiled", "self-extracting", or "source" when it runs from a checkout. */
  build: string;
  deno: string;
  v8: string;
  /** `linux/x86_64`. */
  platform: string;
}

/** Reads what tools/build.sh left beside the bundle; a checkout has no such file. */
export function versionInfo(): VersionInfo {
  const runtime = {
    deno: Deno.version.deno,
    v8: Deno.version.v8,
    platform: `${Deno.build.os}/${Deno.build.arch}`,
  };
  let built: { version: string; commit: string; build: string };
  try {
    built = JSON.parse(Deno.readTextFileSync(new URL("./build.json", import.meta.url)));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    built = { version: sourceVersion(), commit: "unknown", build: "source" };
  }
  return { ...built, ...runtime };
}

function sourceVersion(): string {
  return JSON.parse(Deno.readTextFileSync(new URL("../deno.json", import.meta.url))).version;
}
