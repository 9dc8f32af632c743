import { LogVerifier, type Verdict, type VerifierOptions } from "./verifier.ts";

/** Lines that are verified without a pause: a few milliseconds. */
export const PORTION_LINES = 32;

/** Verifies a log and lets everything else of the agent go on meanwhile. */
export async function verifyInPortions(lines: readonly string[], options: VerifierOptions): Promise<Verdict> {
  const verifier = new LogVerifier(options);
  for (const [i, line] of lines.entries()) {
    if (!verifier.push(line)) break;
    if (i % PORTION_LINES === PORTION_LINES - 1) await new Promise((resolve) => setTimeout(resolve, 0));
  }
  return verifier.finish();
}
