import type { ParsedPolicy } from "../agent/policy/parse.ts";
import { UsageError } from "./exit.ts";
import type { Io } from "./io.ts";

/** What `--policy` becomes in a request. */
export interface RequestPolicy {
  policy: string;
  policyJson: string;
}

/**
 * Reads `--policy`: a file where there is a `/` in it or it ends with `.json`, else the name of a policy on the agent.
 * Throws {@linkcode UsageError} with line and key when the file is bad.
 */
export async function readPolicy(given: string | undefined, io: Io): Promise<RequestPolicy> {
  if (given === undefined) return { policy: "", policyJson: "" };
  if (!given.includes("/") && !given.endsWith(".json")) return { policy: given, policyJson: "" };
  const { text } = await parsePolicyFile(given, io);
  return { policy: "", policyJson: text };
}

/** Reads and checks a policy file. Throws {@linkcode UsageError} with line and key. */
export async function parsePolicyFile(path: string, io: Io): Promise<ParsedPolicy> {
  const { PolicyParser } = await import("../agent/policy/parse.ts");
  let text: string;
  try {
    text = io.readTextFile(path);
  } catch (error) {
    throw new UsageError(`Cannot use policy "${path}": ${(error as Error).message}`, { cause: error });
  }
  try {
    return new PolicyParser().parse(text, path);
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}
