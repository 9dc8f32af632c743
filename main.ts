import { run } from "./cli/main.ts";
import { denoIo } from "./cli/io.ts";

Deno.exit(await run(Deno.args, denoIo()));
