import { UsageError } from "./exit.ts";
import { parseWorkloadId } from "./parse/values.ts";

/** The id or name a command was given, as argument or by `--id`. Throws {@linkcode UsageError}. */
export function requireId(given: string | undefined): string {
  if (given === undefined) throw new UsageError("which workload? Give its id or name");
  try {
    return parseWorkloadId(given);
  } catch (error) {
    throw new UsageError(`id: ${(error as Error).message}`, { cause: error });
  }
}
