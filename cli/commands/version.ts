import { exitCode } from "../exit.ts";
import type { Io } from "../io.ts";
import { versionInfo } from "../version.ts";

/** `hypercore version`. */
export async function version(options: { json: boolean }, io: Io): Promise<number> {
  const info = versionInfo();
  await io.out(
    options.json
      ? `${JSON.stringify(info)}\n`
      : `hypercore ${info.version}\ncommit ${info.commit}\nbuild ${info.build}\n` +
        `deno ${info.deno} (v8 ${info.v8})\nplatform ${info.platform}\n`,
  );
  return exitCode.ok;
}
