import canonicalize from "canonicalize";

/** What has one canonical form: integers only, no `undefined`, no lone surrogates. */
export type CanonicalValue =
  | string
  | number
  | boolean
  | null
  | readonly CanonicalValue[]
  | { readonly [key: string]: CanonicalValue };

/** Levels of nesting that are read and written. */
export const MAX_CANONICAL_DEPTH = 16;

/**
 * The one JSON text of a value, RFC 8785. Throws a TypeError for what is no {@linkcode CanonicalValue}: that is a bug of
 * the caller, not of the input.
 */
export function canonicalJson(value: CanonicalValue): string {
  const problem = problemOf(value, 0);
  if (problem !== undefined) throw new TypeError(`Cannot write canonical JSON: ${problem}`);
  return canonicalize(value) as string;
}

/** {@linkcode canonicalJson} as UTF-8. */
export function canonicalBytes(value: CanonicalValue): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(canonicalJson(value)) as Uint8Array<ArrayBuffer>;
}

/** Reads JSON that must be canonical to the byte; the reason when it is not. */
export function parseCanonical(text: string): { value: CanonicalValue } | { reason: string } {
  let value: CanonicalValue;
  try {
    value = JSON.parse(text);
  } catch {
    return { reason: "it is not JSON" };
  }
  const problem = problemOf(value, 0);
  if (problem !== undefined) return { reason: problem };
  return canonicalize(value) === text ? { value } : { reason: "it is not in canonical form (RFC 8785)" };
}

function problemOf(value: unknown, depth: number): string | undefined {
  if (depth > MAX_CANONICAL_DEPTH) return `it is nested deeper than ${MAX_CANONICAL_DEPTH}`;
  switch (typeof value) {
    case "string":
      return value.isWellFormed() ? undefined : "it holds half a surrogate pair";
    case "number":
      return Number.isSafeInteger(value) && !Object.is(value, -0) ? undefined : `${value} is not an integer`;
    case "boolean":
      return undefined;
    case "object": {
      if (value === null) return undefined;
      if (!Array.isArray(value) && Object.getPrototypeOf(value) !== Object.prototype) {
        return "not a plain object";
      }
      const entries = Array.isArray(value) ? [...value.entries()] : Object.entries(value);
      for (const [key, each] of entries) {
        const problem = problemOf(each, depth + 1) ??
          (typeof key === "string" ? problemOf(key, depth) : undefined);
        if (problem !== undefined) return problem;
      }
      return undefined;
    }
    default:
      return `it holds ${typeof value}`;
  }
}
