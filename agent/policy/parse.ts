import { Ajv, type ErrorObject, type ValidateFunction } from "ajv";
import schema from "../../docs/policy.schema.json" with { type: "json" };
import { convertPolicy, policyNotes } from "./convert.ts";
import { MAX_POLICY_BYTES, MAX_PROBLEMS } from "./limits.ts";
import type { Policy } from "./policy.ts";
import { PolicyError } from "./policy_error.ts";
import { escapePointer, pathText, type Problem, readSource, type SourceText } from "./source_text.ts";
import type { PolicyFile } from "./wire.ts";

/** A policy read from text. */
export interface ParsedPolicy {
  policy: Policy;
  /** The text it was read from. */
  text: string;
  /** What is allowed, but may have been meant otherwise. */
  notes: readonly string[];
}

/**
 * Reads policies. Making one compiles the schema, which takes its time: import this module where it is needed, and keep
 * the parser.
 */
export class PolicyParser {
  readonly #validate: ValidateFunction<PolicyFile>;

  constructor() {
    const ajv = new Ajv({
      allErrors: true,
      strict: true,
      strictRequired: false,
      allowUnionTypes: true,
      verbose: true,
    });
    this.#validate = ajv.compile<PolicyFile>(schema);
  }

  /** Reads a policy's text or bytes. Throws {@linkcode PolicyError}, which names `source`, line and key. */
  parse(text: string | Uint8Array, source: string): ParsedPolicy {
    const decoded = decode(text);
    if (typeof decoded !== "string") throw new PolicyError(source, [decoded]);
    const read = readSource(decoded);
    if (Array.isArray(read)) throw new PolicyError(source, ordered(read));
    const { value } = read;
    if (!this.#validate(value)) {
      throw new PolicyError(
        source,
        ordered((this.#validate.errors ?? []).map((error) => problemOf(error, read))),
      );
    }
    const problems: Problem[] = [];
    const policy = convertPolicy(value, (pointer, message) => {
      problems.push({ ...read.placeOf(pointer), path: pathText(pointer), message });
    });
    if (problems.length > 0) throw new PolicyError(source, ordered(problems));
    return { policy, text: decoded, notes: policyNotes(value) };
  }
}

function decode(text: string | Uint8Array): string | Problem {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  if (bytes.length > MAX_POLICY_BYTES) {
    return { path: "", message: `it has ${bytes.length} bytes, at most ${MAX_POLICY_BYTES} are read` };
  }
  if (typeof text === "string") return text;
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(text);
  } catch {
    return { path: "", message: "it is not valid UTF-8" };
  }
}

function problemOf(error: ErrorObject, source: SourceText): Problem {
  const { instancePath, keyword, params } = error;
  if (keyword === "additionalProperties" || keyword === "propertyNames") {
    const key = String(keyword === "propertyNames" ? params.propertyName : params.additionalProperty);
    const pointer = `${instancePath}/${escapePointer(key)}`;
    const near = keyword === "propertyNames" ? undefined : nearest(key, error.parentSchema);
    const message = keyword === "propertyNames"
      ? "is not a key that can stand here"
      : `is not a known key${near === undefined ? "" : `; did you mean ${near}?`}`;
    return { ...source.placeOfKey(pointer), path: pathText(pointer), message };
  }
  return { ...source.placeOf(instancePath), path: pathText(instancePath), message: words(error) };
}

function words({ keyword, params, message, instancePath, schemaPath }: ErrorObject): string {
  switch (keyword) {
    case "type": {
      const types = [params.type].flat() as string[];
      return `must be ${types.map((type) => TYPES[type] ?? type).join(" or ")}`;
    }
    case "enum":
      return `must be ${
        (params.allowedValues as string[]).map((value) => JSON.stringify(value)).join(" or ")
      }`;
    case "required":
      return `${instancePath === "" ? "the policy" : "it"} has no ${params.missingProperty}`;
    case "minimum":
      return `must be at least ${params.limit}`;
    case "maximum":
      return `must be at most ${params.limit}`;
    case "maxItems":
      return `has more than ${params.limit} entries`;
    case "minItems":
      return "must not be empty";
    case "minProperties":
      return params.limit === 1 ? "must not be empty" : "names no maximum";
    case "maxProperties":
      return `has more than ${params.limit} keys`;
    case "maxLength":
      return `is longer than ${params.limit} characters`;
    case "minLength":
      return "must not be empty";
    case "pattern":
      return patternWords(schemaPath, instancePath);
    default:
      return message ?? "is not allowed";
  }
}

/** What a pattern of the schema stands for. */
function patternWords(schemaPath: string, instancePath: string): string {
  if (schemaPath.includes("/port/")) return "must be a port from 1 to 65535, or a range such as 8000-8100";
  if (/digest/.test(schemaPath + instancePath)) return "must be sha256: and 64 lower-case hex digits";
  if (schemaPath.includes("/cidr/")) return "must be an IPv4 network such as 10.0.0.0/8";
  if (instancePath === "/name") return "must be 1 to 128 of letters, digits, ., _ and -";
  if (schemaPath.includes("/label/")) return "must be a label's key: letters, digits, ., _, / and -";
  return "holds a control character";
}

const TYPES: Record<string, string> = {
  number: "a number",
  integer: "a whole number",
  string: "a string",
  boolean: "true or false",
  array: "a list",
  object: "an object",
};

/** The known key that differs from a wrong one in up to two letters. */
function nearest(key: string, within: unknown): string | undefined {
  const known = Object.keys(
    (within as { properties?: Record<string, unknown> } | undefined)?.properties ?? {},
  );
  if (key.length > 64) return undefined;
  const [best] = known.map((candidate) => ({ candidate, distance: editDistance(key, candidate) }))
    .sort((a, b) => a.distance - b.distance);
  return best !== undefined && best.distance <= 2 ? best.candidate : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}

/** By place, each once, so many at most. */
function ordered(problems: readonly Problem[]): Problem[] {
  const seen = new Set<string>();
  return problems.filter(({ line, path, message }) => {
    const key = `${line} ${path} ${message}`;
    return !seen.has(key) && seen.add(key) !== undefined;
  }).sort((a, b) => (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0)).slice(
    0,
    MAX_PROBLEMS,
  );
}
