import { parse, type ValueNode } from "@humanwhocodes/momoa";
import { MAX_POLICY_DEPTH } from "./limits.ts";

/** Something wrong in a file. */
export interface Problem {
  /** From 1; absent when the file as a whole is meant. */
  line?: number;
  /** From 1; absent where the line is. */
  column?: number;
  /** `rules.nodes[0]`; empty for the whole. */
  path: string;
  message: string;
}

/** A JSON text read, and where in it each thing stands. */
export interface SourceText {
  value: unknown;
  /** Where the value at a JSON pointer stands, or the nearest one around it. */
  placeOf(pointer: string): Place;
  /** Where the key at a JSON pointer stands. */
  placeOfKey(pointer: string): Place;
}

/** A place in a text, from 1. */
export interface Place {
  line: number;
  column: number;
}

/** Reads JSON. What is wrong is told with its line: syntax, a key listed twice, nesting that is too deep. */
export function readSource(text: string): SourceText | Problem[] {
  const tooDeep = lineTooDeep(text);
  if (tooDeep !== undefined) {
    return [{ line: tooDeep, path: "", message: `it is nested deeper than ${MAX_POLICY_DEPTH}` }];
  }
  let root: ValueNode;
  try {
    root = parse(text, { mode: "json" }).body;
    // Stricter with strings.
    JSON.parse(text);
  } catch (error) {
    const { message, line, column } = error as Error & Partial<Place>;
    const words = message.replace(/ found\. \(.*\)$/, "").replace(/^Unexpected/, "unexpected");
    return [{
      ...(line !== undefined && { line, column }),
      path: "",
      message: `it is not valid JSON: ${words}`,
    }];
  }
  const places = new Map<string, Place>();
  const keyPlaces = new Map<string, Place>();
  const problems: Problem[] = [];
  const value = visit(root, "");
  if (problems.length > 0) return problems;
  return {
    value,
    placeOf(pointer) {
      for (let at = pointer; at !== ""; at = at.slice(0, at.lastIndexOf("/"))) {
        const place = places.get(at);
        if (place !== undefined) return place;
      }
      return places.get("")!;
    },
    placeOfKey: (pointer) => keyPlaces.get(pointer) ?? places.get("")!,
  };

  function visit(node: ValueNode, pointer: string): unknown {
    const place = placeAt(node.loc.start);
    places.set(pointer, place);
    switch (node.type) {
      case "Object": {
        const object: Record<string, unknown> = {};
        for (const { name, value } of node.members) {
          const key = name.type === "String" ? name.value : name.name;
          const at = `${pointer}/${escapePointer(key)}`;
          const keyPlace = placeAt(name.loc.start);
          if (keyPlaces.has(at)) {
            problems.push({ ...keyPlace, path: pathText(at), message: "is listed twice" });
          }
          // No schema could see it: it would change the object itself.
          if (key === "__proto__") {
            problems.push({ ...keyPlace, path: pathText(at), message: "is not a key" });
          }
          if (!key.isWellFormed()) {
            problems.push({ ...keyPlace, path: pathText(at), message: "holds half a surrogate pair" });
          }
          keyPlaces.set(at, keyPlace);
          if (key !== "__proto__") object[key] = visit(value, at);
        }
        return object;
      }
      case "Array":
        return node.elements.map(({ value }, index) => visit(value, `${pointer}/${index}`));
      case "Null":
        return null;
      case "String":
        if (!node.value.isWellFormed()) {
          problems.push({
            ...place,
            path: pathText(pointer),
            message: "holds half a surrogate pair",
          });
        }
        return node.value;
      case "Number":
      case "Boolean":
        return node.value;
      default:
        problems.push({ ...place, path: pathText(pointer), message: "is not JSON" });
    }
  }
}

function placeAt({ line, column }: Place): Place {
  return { line, column };
}

/** A JSON pointer (RFC 6901) as people write it: `rules.nodes[0]`. */
export function pathText(pointer: string): string {
  return pointer.split("/").slice(1)
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .map((part) => part.slice(0, MAX_SHOWN).replace(/\p{Cc}/gu, "?"))
    .reduce(
      (path, part) => /^\d+$/.test(part) ? `${path}[${part}]` : path === "" ? part : `${path}.${part}`,
      "",
    );
}

/** One part of a JSON pointer. */
export function escapePointer(key: string): string {
  return key.replaceAll("~", "~0").replaceAll("/", "~1");
}

/** Of a key, what is shown. */
const MAX_SHOWN = 100;

/** The line at which brackets go too deep; found without recursion, which a hostile text could exhaust. */
function lineTooDeep(text: string): number | undefined {
  let [depth, line, inString] = [0, 1, false];
  for (let at = 0; at < text.length; at++) {
    const character = text[at];
    if (character === "\n") line++;
    if (inString) {
      if (character === "\\") at++;
      else if (character === '"') inString = false;
    } else if (character === '"') inString = true;
    else if (character === "{" || character === "[") {
      if (++depth > MAX_POLICY_DEPTH) return line;
    } else if (character === "}" || character === "]") depth--;
  }
  return undefined;
}
